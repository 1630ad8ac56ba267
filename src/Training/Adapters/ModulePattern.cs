using System.Text.RegularExpressions;

namespace TrainingService.Training.Adapters;

/// <summary>Regular expressions over module names, as Hugging Face PEFT reads them, in bounded time.</summary>
public static class ModulePattern
{
    private const int Longest = 20_000;   // each module of a large model by its name
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
        if (pattern.Length > Longest)
        {
            return $"the pattern has {pattern.Length} characters, and at most {Longest} are read";
        }

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
            return IsMatch(pattern, name, RegexOptions.NonBacktracking);
        }
        catch (NotSupportedException)
        {
            return IsMatch(pattern, name, RegexOptions.None);
        }
    }

    /// <remarks>The static method keeps the last patterns in compiled form: one is asked about each module of a model.</remarks>
    private static bool IsMatch(string pattern, string name, RegexOptions engine)
    {
        try
        {
            return Regex.IsMatch(name, pattern, RegexOptions.CultureInvariant | engine, MatchTimeout);
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
