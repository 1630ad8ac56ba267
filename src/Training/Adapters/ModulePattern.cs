using System.Text.RegularExpressions;

namespace TrainingService.Training.Adapters;

/// <summary>Regular expressions over module names, as Hugging Face PEFT reads them, in bounded time.</summary>
public static class ModulePattern
{
    private static readonly TimeSpan MatchTimeout = TimeSpan.FromSeconds(1);

    /// <summary>Whether <paramref name="pattern"/> describes the whole of <paramref name="name"/>.</summary>
    public static bool MatchesWhole(string pattern, string name) => IsMatch(Whole(pattern), name);

    /// <summary>
    /// Whether a key of <c>rank_pattern</c> or <c>alpha_pattern</c> means the module: it describes the whole name or the part after one
    /// of its dots; a key that starts with <c>^</c> is matched from the first letter on and need not reach the last.
    /// </summary>
    public static bool MatchesKey(string key, string name) =>
        IsMatch(key.StartsWith('^') ? key : $"^(?:.*\\.)?(?:{key})\\z", name);

    /// <summary>Says what is wrong with a pattern; null when nothing is.</summary>
    public static string? Fault(string pattern)
    {
        try
        {
            _ = Compile(pattern);
            _ = Compile(Whole(pattern));   // a comment in the pattern could swallow what closes it
            return null;
        }
        catch (ArgumentException error)
        {
            return error.Message;
        }
    }

    private static string Whole(string pattern) => $"^(?:{pattern})\\z";

    private static bool IsMatch(string pattern, string name)
    {
        try
        {
            return Compile(pattern).IsMatch(name);
        }
        catch (RegexMatchTimeoutException)
        {
            throw TrainingException.InvalidSpec(
                $"The regular expression '{pattern}' takes too long on module '{name}'; write it without nested repetitions.");
        }
    }

    private static Regex Compile(string pattern)
    {
        try
        {
            return new Regex(pattern, RegexOptions.CultureInvariant | RegexOptions.NonBacktracking, MatchTimeout);
        }
        catch (NotSupportedException)   // look-around and back-references need the backtracking engine; the timeout bounds it
        {
            return new Regex(pattern, RegexOptions.CultureInvariant, MatchTimeout);
        }
    }
}
