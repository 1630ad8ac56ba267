using System.Text.Json;

namespace TrainingService.Training;

/// <summary>JSON paths as our messages write them: <c>optimizer.betas[1]</c>, <c>adapter.rank_pattern["q.*"]</c>.</summary>
internal static class SpecPath
{
    private const int LongestPart = 100;

    public static string Member(string parent, string name) =>
        !IsPlain(name) ? $"{parent}[{JsonSerializer.Serialize(Shorten(name), SpecJson.Options)}]"
        : parent.Length == 0 ? name
        : $"{parent}.{name}";

    public static string Item(string parent, int index) => $"{parent}[{index}]";

    /// <summary>The member in a sentence.</summary>
    public static string Spoken(string path) => path.Length == 0 ? "The spec" : path;

    /// <summary>Whether <paramref name="path"/> is <paramref name="ancestor"/> or lies below it.</summary>
    public static bool IsWithin(string path, string ancestor) =>
        path == ancestor
        || (path.StartsWith(ancestor, StringComparison.Ordinal) && (ancestor.Length == 0 || path[ancestor.Length] is '.' or '['));

    public static string Shorten(string text) =>
        text.Length <= LongestPart ? text
        : char.IsHighSurrogate(text[LongestPart - 1]) ? text[..(LongestPart - 1)] + "…"
        : text[..LongestPart] + "…";

    private static bool IsPlain(string name) =>
        name.Length is > 0 and <= LongestPart && name.All(letter => char.IsAsciiLetterOrDigit(letter) || letter is '_' or '-');
}
