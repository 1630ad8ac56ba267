using System.Text;
using System.Text.RegularExpressions;

namespace TrainingService.Training.Tokenizers;

/// <summary>A text and the ranges of it that are words.</summary>
internal sealed record Words(MappedText Text, IReadOnlyList<(int Start, int Length)> Ranges);

/// <summary>Cuts a text into words; no token reaches across two of them.</summary>
internal abstract class PreTokenizer
{
    public abstract Words Apply(Words words);
}

internal sealed class SequencePreTokenizer(IReadOnlyList<PreTokenizer> steps) : PreTokenizer
{
    public override Words Apply(Words words) => steps.Aggregate(words, (current, step) =>
    {
        var next = step.Apply(current);
        MappedText.CheckGrowth(words.Text, next.Text);
        return next;
    });
}

/// <summary>What becomes of the separators that a split finds.</summary>
internal enum SplitBehavior
{
    /// <summary>Each is a word.</summary>
    Isolated,

    /// <summary>They are left out.</summary>
    Removed,

    /// <summary>Each ends the word before it.</summary>
    MergedWithPrevious,

    /// <summary>Each begins the word behind it.</summary>
    MergedWithNext,

    /// <summary>Neighbouring ones are one word.</summary>
    Contiguous,
}

/// <summary>Cuts words at what a matcher finds.</summary>
/// <param name="matches">Ranges of separators in a text, in order.</param>
/// <param name="invert">Whether the text between the matches is the separator.</param>
internal sealed class SplitPreTokenizer(SplitPreTokenizer.Matcher matches, SplitBehavior behavior, bool invert) : PreTokenizer
{
    public delegate IReadOnlyList<(int Start, int Length)> Matcher(ReadOnlySpan<char> text);

    public static Matcher Literal(string text) => RegexMatcher(new Regex(Regex.Escape(text), RegexOptions.CultureInvariant));

    public static Matcher RegexMatcher(Regex regex) => text => RegexSpans.Matches(regex, text);

    /// <summary>Each character that satisfies a condition is a match of its own.</summary>
    public static Matcher Characters(Func<Rune, bool> condition) => text =>
    {
        var found = new List<(int, int)>();
        var position = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            if (condition(rune))
            {
                found.Add((position, rune.Utf16SequenceLength));
            }

            position += rune.Utf16SequenceLength;
        }

        return found;
    };

    public override Words Apply(Words words)
    {
        var result = new List<(int Start, int Length)>(words.Ranges.Count);
        var parts = new List<(int Start, int Length, bool Match)>();
        foreach (var (start, length) in words.Ranges)
        {
            parts.Clear();
            var done = 0;
            foreach (var match in matches(words.Text.Text.AsSpan(start, length)))
            {
                AddPart(parts, done, match.Start, invert);
                AddPart(parts, match.Start, match.Start + match.Length, !invert);
                done = match.Start + match.Length;
            }

            AddPart(parts, done, length, invert);
            Join(parts, start, result);
        }

        return words with { Ranges = result };
    }

    private static void AddPart(List<(int Start, int Length, bool Match)> parts, int start, int end, bool match)
    {
        if (end > start)
        {
            parts.Add((start, end - start, match));
        }
    }

    private void Join(List<(int Start, int Length, bool Match)> parts, int offset, List<(int Start, int Length)> result)
    {
        var previous = false;     // whether the part before was a separator
        var first = result.Count;
        foreach (var (start, length, match) in parts)
        {
            var joins = behavior switch
            {
                SplitBehavior.Isolated or SplitBehavior.Removed => false,
                SplitBehavior.MergedWithPrevious => match && !previous,
                SplitBehavior.MergedWithNext => !match && previous,
                SplitBehavior.Contiguous => match == previous,
            };
            if (joins && result.Count > first)
            {
                result[^1] = (result[^1].Start, result[^1].Length + length);
            }
            else if (!(match && behavior == SplitBehavior.Removed))
            {
                result.Add((offset + start, length));
            }

            previous = match;
        }
    }
}

/// <summary>Writes a word's UTF-8 bytes as printable characters, one each, as GPT-2's vocabulary does; may cut by GPT-2's pattern first.</summary>
internal sealed class ByteLevelPreTokenizer(bool addPrefixSpace, bool useRegex) : PreTokenizer
{
    private static readonly Regex Pattern = RegexSpans.Create(
        @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", "pre_tokenizer");

    public override Words Apply(Words words)
    {
        var text = words.Text.Text;
        var builder = new MappedText.Builder(words.Text);
        var result = new List<(int Start, int Length)>(words.Ranges.Count);
        foreach (var (start, length) in words.Ranges)
        {
            var prefixed = addPrefixSpace && length > 0 && text[start] != ' ';
            var word = prefixed ? string.Concat(" ", text.AsSpan(start, length)) : text.Substring(start, length);
            IReadOnlyList<(int Start, int Length)> pieces =
                useRegex ? RegexSpans.Matches(Pattern, word) : [(0, word.Length)];
            foreach (var piece in pieces)
            {
                var from = builder.Length;
                AppendBytes(words.Text, word, piece.Start, piece.Length, start, prefixed, builder);
                result.Add((from, builder.Length - from));
            }
        }

        return new Words(builder.Build(), result);
    }

    private static void AppendBytes(
        MappedText source, string word, int start, int length, int wordStart, bool prefixed, MappedText.Builder builder)
    {
        Span<byte> bytes = stackalloc byte[4];
        for (var i = start; i < start + length;)
        {
            Rune.DecodeFromUtf16(word.AsSpan(i), out var rune, out var size);
            var (sourceStart, sourceEnd) = prefixed && i == 0
                ? source.Source(wordStart, 0)
                : source.Source(wordStart + i - (prefixed ? 1 : 0), size);
            if (rune.IsAscii)
            {
                builder.Append(ByteCharacters.Of((byte)rune.Value), sourceStart, sourceEnd);
            }
            else
            {
                var count = rune.EncodeToUtf8(bytes);
                for (var b = 0; b < count; b++)
                {
                    builder.Append(ByteCharacters.Of(bytes[b]), sourceStart, sourceEnd);
                }
            }

            i += size;
        }
    }
}

/// <summary>Writes spaces as ▁, puts one before a word, and cuts before each.</summary>
internal sealed class MetaspacePreTokenizer(char replacement, PrependScheme scheme, bool split) : PreTokenizer
{
    public override Words Apply(Words words)
    {
        var builder = new MappedText.Builder(words.Text);
        var result = new List<(int Start, int Length)>(words.Ranges.Count);
        foreach (var (start, length) in words.Ranges)
        {
            var from = builder.Length;
            var (source, _) = words.Text.Source(start, 0);
            var marked = length > 0 && words.Text.Text[start] is var c && (c == ' ' || c == replacement);
            if (!marked && (scheme == PrependScheme.Always || (scheme == PrependScheme.First && source == 0)))
            {
                builder.Append(replacement, source, source);
            }

            for (var i = start; i < start + length; i++)
            {
                var (sourceStart, sourceEnd) = words.Text.Source(i, 1);
                var space = words.Text.Text[i] == ' ' || words.Text.Text[i] == replacement;
                if (space && split && builder.Length > from)
                {
                    result.Add((from, builder.Length - from));
                    from = builder.Length;
                }

                builder.Append(space ? replacement : words.Text.Text[i], sourceStart, sourceEnd);
            }

            if (builder.Length > from)
            {
                result.Add((from, builder.Length - from));
            }
        }

        return new Words(builder.Build(), result);
    }
}

/// <summary>Which parts of the input get a ▁ before them.</summary>
internal enum PrependScheme
{
    /// <summary>The one that begins the input.</summary>
    First,

    /// <summary>Each part between added tokens.</summary>
    Always,

    /// <summary>None.</summary>
    Never,
}
