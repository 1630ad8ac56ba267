using System.Globalization;
using System.Text;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>Python's string functions.</summary>
internal static class JinjaStrings
{
    public static string Strip(string text, string? characters, bool left, bool right)
    {
        bool Goes(char c) => characters is null ? IsSpace(c) : characters.Contains(c, StringComparison.Ordinal);

        var (start, end) = (0, text.Length);
        while (left && start < end && Goes(text[start]))
        {
            start++;
        }

        while (right && end > start && Goes(text[end - 1]))
        {
            end--;
        }

        return text[start..end];
    }

    /// <summary>Python counts the four information separators as white space, .NET does not.</summary>
    public static bool IsSpace(char c) => char.IsWhiteSpace(c) || c is >= '\x1c' and <= '\x1f';

    public static List<string> Split(JinjaBudget budget, string text, string? separator, long most, bool fromRight)
    {
        if (separator is { Length: 0 })
        {
            throw JinjaErrors.Run("a text is split at an empty separator");
        }

        if (separator is null)
        {
            var words = SplitAtSpace(budget, text, fromRight ? -1 : most);
            return fromRight && most >= 0 && most < words.Count - 1
                ? throw JinjaErrors.Run("rsplit with a number of splits needs a separator")
                : words;
        }

        budget.Items(Count(budget, text, separator) + 1L);
        List<string> parts = [.. text.Split(separator)];
        if (most < 0 || most >= parts.Count - 1)
        {
            return parts;
        }

        var glued = (int)(parts.Count - most);
        return fromRight
            ? [string.Join(separator, parts.Take(glued)), .. parts.Skip(glued)]
            : [.. parts.Take((int)most), string.Join(separator, parts.Skip((int)most))];
    }

    /// <summary>How often a part that is not empty stands in a text, without overlaps.</summary>
    public static int Count(JinjaBudget budget, string text, string part)
    {
        budget.Search(text.Length, part.Length);
        var count = 0;
        for (var i = text.IndexOf(part, StringComparison.Ordinal); i >= 0; i = text.IndexOf(part, i + part.Length, StringComparison.Ordinal))
        {
            count++;
        }

        return count;
    }

    public static List<string> Lines(JinjaBudget budget, string text)
    {
        var lines = new List<string>();
        var start = 0;
        for (var i = 0; i < text.Length; i++)
        {
            if (text[i] is not ('\n' or '\r' or '\v' or '\f' or '\x1c' or '\x1d' or '\x1e' or '\x85' or '\u2028' or '\u2029'))
            {
                continue;
            }

            Add(budget, lines, text[start..i]);
            i += text[i] == '\r' && i + 1 < text.Length && text[i + 1] == '\n' ? 1 : 0;
            start = i + 1;
        }

        if (start < text.Length)
        {
            lines.Add(text[start..]);
        }

        return lines;
    }

    public static string Replace(JinjaBudget budget, string text, string old, string with, long most)
    {
        if (most == 0)
        {
            return text;
        }

        if (old.Length == 0)
        {
            throw JinjaErrors.Run("an empty text is replaced");
        }

        budget.Search(text.Length, old.Length);
        var result = new StringBuilder();
        var start = 0;
        for (var i = text.IndexOf(old, StringComparison.Ordinal); i >= 0 && most != 0; i = text.IndexOf(old, start, StringComparison.Ordinal))
        {
            result.Append(text, start, i - start).Append(with);
            start = i + old.Length;
            most--;
            if (result.Length > JinjaBudget.MaxText)
            {
                budget.Text(result.Length);
            }
        }

        result.Append(text, start, text.Length - start);
        budget.Text(result.Length);
        return result.ToString();
    }

    public static string Upper(string text) => text.ToUpperInvariant().Replace("ß", "SS", StringComparison.Ordinal);

    public static string Lower(string text) => text.ToLowerInvariant();

    public static string Capitalize(string text)
    {
        var size = text.Length > 1 && char.IsSurrogatePair(text, 0) ? 2 : Math.Min(1, text.Length);
        return Upper(text[..size]) + Lower(text[size..]);
    }

    /// <summary>Capital letters behind whatever <paramref name="startsWord"/> says begins a word.</summary>
    public static string Title(string text, Func<char, bool> startsWord)
    {
        var result = new StringBuilder(text.Length);
        var first = true;
        foreach (var character in text)
        {
            var isBreak = startsWord(character);
            result.Append(isBreak ? character : first ? char.ToUpperInvariant(character) : char.ToLowerInvariant(character));
            first = isBreak;
        }

        return result.ToString();
    }

    public static string Indent(JinjaBudget budget, string text, string indentation, bool first, bool blank)
    {
        var lines = Lines(budget, text + "\n");
        budget.Text(text.Length + ((long)indentation.Length * lines.Count));
        var rest = lines.Skip(1).Select(line => blank || line.Length > 0 ? indentation + line : line);
        return (first ? indentation : "") + string.Join('\n', lines.Take(1).Concat(rest));
    }

    public static long? ParseInteger(string text, int numberBase)
    {
        var trimmed = Strip(text, null, left: true, right: true).Replace("_", "", StringComparison.Ordinal);
        if (numberBase == 10)
        {
            return long.TryParse(trimmed, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var value) ? value : null;
        }

        return numberBase == 16 && long.TryParse(
            trimmed.StartsWith("0x", StringComparison.OrdinalIgnoreCase) ? trimmed[2..] : trimmed,
            NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var hex) ? hex : null;
    }

    public static double? ParseFloat(string text) => double.TryParse(
        Strip(text, null, left: true, right: true), NumberStyles.Float, CultureInfo.InvariantCulture, out var value) ? value : null;

    /// <summary>The words of a text; behind the first <paramref name="most"/> the rest is one part. All words when it is negative.</summary>
    private static List<string> SplitAtSpace(JinjaBudget budget, string text, long most)
    {
        var parts = new List<string>();
        var end = 0;
        while (true)
        {
            var start = end;
            while (start < text.Length && IsSpace(text[start]))
            {
                start++;
            }

            if (start == text.Length)
            {
                return parts;
            }

            end = parts.Count == most ? text.Length : start;
            while (end < text.Length && !IsSpace(text[end]))
            {
                end++;
            }

            Add(budget, parts, text[start..end]);
        }
    }

    /// <summary>Adds to a list of which it is not known beforehand how long it becomes.</summary>
    private static void Add(JinjaBudget budget, List<string> parts, string part)
    {
        parts.Add(part);
        if (parts.Count > JinjaBudget.MaxItems)
        {
            budget.Items(parts.Count);
        }
    }
}
