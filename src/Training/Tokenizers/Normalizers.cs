using System.Text;
using System.Text.RegularExpressions;

namespace TrainingService.Training.Tokenizers;

/// <summary>One step of preparing a text before it is cut into words.</summary>
internal abstract class Normalizer
{
    public abstract MappedText Apply(MappedText text);
}

internal sealed class SequenceNormalizer(IReadOnlyList<Normalizer> steps) : Normalizer
{
    public override MappedText Apply(MappedText text) =>
        steps.Aggregate(text, (current, step) => MappedText.CheckGrowth(text, step.Apply(current)));
}

internal sealed class UnicodeNormalizer(bool compose, bool compatibility) : Normalizer
{
    public override MappedText Apply(MappedText text) => UnicodeNormalization.Normalize(text, compose, compatibility);
}

/// <summary>Puts a text before every part that is not empty, or only before one that begins the input.</summary>
internal sealed class PrependNormalizer(string prefix, bool onlyFirst = false) : Normalizer
{
    public override MappedText Apply(MappedText text) =>
        text.Text.Length == 0 || (onlyFirst && text.Source(0, 0).Start != 0) ? text : text.Prepend(prefix);
}

internal sealed class StripNormalizer(bool left, bool right) : Normalizer
{
    public override MappedText Apply(MappedText text)
    {
        var start = 0;
        var end = text.Text.Length;
        while (left && start < end && char.IsWhiteSpace(text.Text[start]))
        {
            start++;
        }

        while (right && end > start && char.IsWhiteSpace(text.Text[end - 1]))
        {
            end--;
        }

        return text.Part(start, end - start);
    }
}

internal sealed class LowercaseNormalizer : Normalizer
{
    public override MappedText Apply(MappedText text)
    {
        // U+0130 is the one character whose lower case has another length.
        if (!text.Text.Contains('\u0130', StringComparison.Ordinal))
        {
            return text.WithText(text.Text.ToLowerInvariant());
        }

        var builder = new MappedText.Builder(text);
        for (var i = 0; i < text.Text.Length; i++)
        {
            var (start, end) = text.Source(i, 1);
            builder.Append(text.Text[i] == '\u0130' ? "i\u0307" : text.Text[i].ToString().ToLowerInvariant(), start, end);
        }

        return builder.Build();
    }
}

/// <summary>Replaces every occurrence of a string or a regular expression.</summary>
internal sealed class ReplaceNormalizer(string? literal, Regex? regex, string content) : Normalizer
{
    public override MappedText Apply(MappedText text)
    {
        if (literal is { Length: 1 } && content.Length == 1)
        {
            return text.WithText(text.Text.Replace(literal[0], content[0]));
        }

        var builder = new MappedText.Builder(text);
        var done = 0;
        foreach (var (start, length) in literal is null ? RegexSpans.Matches(regex!, text.Text) : Occurrences(text.Text, literal))
        {
            builder.Copy(done, start - done);
            var (sourceStart, sourceEnd) = text.Source(start, length);
            builder.Append(content, sourceStart, sourceEnd);
            done = start + length;
        }

        if (done == 0 && builder.Length == 0)
        {
            return text;
        }

        builder.Copy(done, text.Text.Length - done);
        return builder.Build();
    }

    private static IEnumerable<(int Start, int Length)> Occurrences(string text, string literal)
    {
        for (var i = text.IndexOf(literal, StringComparison.Ordinal); i >= 0;)
        {
            yield return (i, literal.Length);
            i = text.IndexOf(literal, i + literal.Length, StringComparison.Ordinal);
        }
    }
}

/// <summary>Matches of a tokenizer file's regular expression, with characters beyond the basic plane counted as one character.</summary>
internal static class RegexSpans
{
    private const int LongestPattern = 10_000;   // those in use have some hundred characters
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(2);

    /// <summary>Reads a pattern as tokenizer files write it.</summary>
    /// <exception cref="TrainingException">The pattern uses something that .NET's expressions lack.</exception>
    public static Regex Create(string pattern, string param)
    {
        if (pattern.Length > LongestPattern)
        {
            throw TrainingException.InvalidData(
                $"{param} has a regular expression of {pattern.Length} characters, and at most {LongestPattern} are read; export the tokenizer again.",
                param);
        }

        try
        {
            return new Regex(pattern, RegexOptions.Compiled | RegexOptions.CultureInvariant, Limit);
        }
        catch (ArgumentException e)
        {
            throw TrainingException.InvalidData(
                $"{param} has the regular expression '{SpecPath.Shorten(pattern)}', which is not supported here: {SpecPath.Shorten(e.Message)}", param, e);
        }
    }

    /// <summary>Ranges of <paramref name="text"/> that match, in order.</summary>
    public static List<(int Start, int Length)> Matches(Regex regex, ReadOnlySpan<char> text)
    {
        var found = new List<(int, int)>(text.Length / 4);
        try
        {
            if (text.IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
            {
                foreach (var match in regex.EnumerateMatches(text))
                {
                    found.Add((match.Index, match.Length));
                }

                return found;
            }

            var stand = new StringBuilder(text.Length);
            var positions = new List<int>(text.Length + 1);
            var position = 0;
            foreach (var rune in text.EnumerateRunes())
            {
                positions.Add(position);
                position += rune.Utf16SequenceLength;
                stand.Append(rune.IsBmp ? (char)rune.Value : UnicodeClasses.StandIn(rune));
            }

            positions.Add(position);
            foreach (var match in regex.EnumerateMatches(stand.ToString()))
            {
                var start = positions[match.Index];
                found.Add((start, positions[match.Index + match.Length] - start));
            }

            return found;
        }
        catch (RegexMatchTimeoutException e)
        {
            throw TrainingException.InvalidData(
                $"The tokenizer's regular expression '{SpecPath.Shorten(regex.ToString())}' took longer than {Limit.TotalSeconds:0} s on a text of {text.Length} characters.",
                "tokenizer.json", e);
        }
    }
}
