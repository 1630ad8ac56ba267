using System.Globalization;
using System.Text;

namespace TrainingService.Training.Tokenizers;

/// <summary>Unicode normalisation forms over texts that remember where they came from.</summary>
/// <remarks>
/// <see cref="string.Normalize()"/> returns its input unchanged where the runtime has no globalization data, as this service is run;
/// hence a table of our own. The Unicode Standard, chapter 3.11 (forms) and 3.12 (Hangul).
/// </remarks>
internal static class UnicodeNormalization
{
    private const int HangulBase = 0xAC00, HangulCount = 11172, LeadBase = 0x1100, VowelBase = 0x1161, TailBase = 0x11A7;
    private const int LeadCount = 19, VowelCount = 21, TailCount = 28;

    private static readonly Lazy<Tables> Data = new(Read);

    /// <param name="compose">Whether the form ends in composed characters (NFC, NFKC).</param>
    /// <param name="compatibility">Whether compatibility characters are replaced too (NFKC, NFKD).</param>
    public static MappedText Normalize(MappedText text, bool compose, bool compatibility)
    {
        // Nothing below U+00A0 changes in any form, and nothing below U+0300 in NFC.
        if (text.Text.AsSpan().IndexOfAnyExceptInRange('\0', compose && !compatibility ? '\u02FF' : '\u009F') < 0)
        {
            return text;
        }

        var builder = new MappedText.Builder(text);
        var pending = new List<Mark>();
        var position = 0;
        while (position < text.Text.Length)
        {
            Rune.DecodeFromUtf16(text.Text.AsSpan(position), out var rune, out var length);
            var (start, end) = text.Source(position, length);
            position += length;
            foreach (var part in Decompose(rune.Value, compatibility))
            {
                var mark = new Mark(part, Data.Value.Classes.GetValueOrDefault(part), start, end);
                if (mark.Class == 0 && pending.Count > 0 && !(compose && MayCompose(part)))
                {
                    Flush(pending, compose, builder);
                }

                pending.Add(mark);
            }
        }

        Flush(pending, compose, builder);
        return builder.Build();
    }

    /// <summary>Some starters compose with what the ones before them became, so they stay together until that is known.</summary>
    private static bool MayCompose(int next) =>
        next is >= VowelBase and < VowelBase + VowelCount or > TailBase and < TailBase + TailCount || Data.Value.Seconds.Contains(next);

    private static void Flush(List<Mark> pending, bool compose, MappedText.Builder builder)
    {
        Reorder(pending);
        if (compose)
        {
            ComposeAll(pending);
        }

        Span<char> characters = stackalloc char[2];
        foreach (var mark in pending)
        {
            var length = new Rune(mark.Value).EncodeToUtf16(characters);
            builder.Append(characters[..length], mark.Start, mark.End);
        }

        pending.Clear();
    }

    /// <summary>Marks between two starters are sorted by combining class, those of equal class kept in order.</summary>
    private static void Reorder(List<Mark> marks)
    {
        var start = 0;
        while (start < marks.Count)
        {
            if (marks[start].Class == 0)
            {
                start++;
                continue;
            }

            var end = start;
            while (end < marks.Count && marks[end].Class != 0)
            {
                end++;
            }

            var sorted = marks.GetRange(start, end - start).OrderBy(mark => mark.Class).ToList();
            for (var i = 0; i < sorted.Count; i++)
            {
                marks[start + i] = sorted[i];
            }

            start = end;
        }
    }

    private static void ComposeAll(List<Mark> marks)
    {
        var kept = new List<Mark>(marks.Count);
        var starter = -1;
        foreach (var mark in marks)
        {
            // A mark is blocked from its starter by one of equal or higher class that stayed between them.
            var blocked = starter < kept.Count - 1 && (kept[^1].Class == 0 || kept[^1].Class >= mark.Class);
            if (starter >= 0 && !blocked && Compose(kept[starter].Value, mark.Value) is { } composed)
            {
                var first = kept[starter];
                kept[starter] = new Mark(composed, 0, Math.Min(first.Start, mark.Start), Math.Max(first.End, mark.End));
                continue;
            }

            if (mark.Class == 0)
            {
                starter = kept.Count;
            }

            kept.Add(mark);
        }

        marks.Clear();
        marks.AddRange(kept);
    }

    private static int[] Decompose(int value, bool compatibility)
    {
        var syllable = value - HangulBase;
        if (syllable is >= 0 and < HangulCount)
        {
            var lead = LeadBase + (syllable / (VowelCount * TailCount));
            var vowel = VowelBase + (syllable % (VowelCount * TailCount) / TailCount);
            var tail = syllable % TailCount;
            return tail == 0 ? [lead, vowel] : [lead, vowel, TailBase + tail];
        }

        var data = Data.Value;
        if (compatibility && data.Compatible.TryGetValue(value, out var compatible))
        {
            return compatible;
        }

        return data.Canonical.TryGetValue(value, out var canonical) ? canonical : [value];
    }

    private static int? Compose(int first, int second)
    {
        var (lead, vowel) = (first - LeadBase, second - VowelBase);
        if (lead is >= 0 and < LeadCount && vowel is >= 0 and < VowelCount)
        {
            return HangulBase + (((lead * VowelCount) + vowel) * TailCount);
        }

        var (syllable, tail) = (first - HangulBase, second - TailBase);
        if (syllable is >= 0 and < HangulCount && syllable % TailCount == 0 && tail is > 0 and < TailCount)
        {
            return first + tail;
        }

        return Data.Value.Compositions.TryGetValue((first, second), out var composed) ? composed : null;
    }

    private static Tables Read()
    {
        var tables = new Tables([], [], [], [], []);
        using var stream = typeof(UnicodeNormalization).Assembly.GetManifestResourceStream("UnicodeNormalization.txt")
            ?? throw new InvalidOperationException("The table of Unicode normalisation is not in the assembly.");
        using var reader = new StreamReader(stream);
        while (reader.ReadLine() is { } line)
        {
            if (line.StartsWith('#'))
            {
                continue;
            }

            var fields = line.Split(';');
            var value = int.Parse(fields[0], NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            if (Field(fields, 1) is { Length: > 0 } combining)
            {
                tables.Classes.Add(value, byte.Parse(combining, CultureInfo.InvariantCulture));
            }

            var canonical = CodePoints(Field(fields, 2));
            var compatible = CodePoints(Field(fields, 3));
            if (canonical.Length > 0)
            {
                tables.Canonical.Add(value, canonical);
            }

            if (compatible.Length > 0)
            {
                tables.Compatible.Add(value, compatible);
            }

            var pair = Field(fields, 4) == "=" ? canonical : CodePoints(Field(fields, 4));
            if (pair.Length == 2)
            {
                tables.Compositions.Add((pair[0], pair[1]), value);
                tables.Seconds.Add(pair[1]);
            }
        }

        return tables;
    }

    private static string Field(string[] fields, int index) => index < fields.Length ? fields[index] : "";

    private static int[] CodePoints(string text) =>
        [.. text.Split(' ', StringSplitOptions.RemoveEmptyEntries)
            .Select(code => int.Parse(code, NumberStyles.HexNumber, CultureInfo.InvariantCulture))];

    private readonly record struct Mark(int Value, byte Class, int Start, int End);

    private sealed record Tables(
        Dictionary<int, byte> Classes,
        Dictionary<int, int[]> Canonical,
        Dictionary<int, int[]> Compatible,
        Dictionary<(int First, int Second), int> Compositions,
        HashSet<int> Seconds);
}
