using System.Buffers;
using System.Buffers.Binary;
using System.Text;

namespace TrainingService.Training.Data.Stored;

/// <summary>What an example is beside its tokens.</summary>
internal readonly record struct ExampleHead(int Row, int? Class = null, IReadOnlyList<int>? Ends = null, float? Value = null, string? Category = null, bool IsTie = false,
    string? Capability = null)
{
    public bool IsJudged => Ends is not null || Value is not null || Category is not null || IsTie || Capability is not null;
}

/// <summary>One example as bytes: what it is, which of its tokens carry loss, and its token ids in two bytes each, or four.</summary>
/// <remarks>
/// The row, and a number whose bits tell how labels are written (1: as numbers, else as runs), whether judgements follow (2), and the class
/// (from 4; 0: none, and from 1), are variable-length integers (seven bits a byte, the lowest first). Judgements: how many sequences there
/// are (0: one, without ends) and their ends; 1 if a value follows, and 2 more for a tie, and the value as a four-byte float; the length of the category in bytes plus 1 and its UTF-8, or 0; the capability in the same way.
/// Runs: their number, and the lengths of alternating runs without and with loss, the first one without. Numbers: four bytes each. Ids and
/// numbers are little-endian.
/// </remarks>
internal static class TokenRecord
{
    private const int NarrowVocabulary = 1 << 16;
    private const int LongestVarint = 5;

    /// <summary>Whether every id of a model and its tokenizer fits into two bytes.</summary>
    public static bool IsNarrow(int? model, int? tokenizer) => model <= NarrowVocabulary && tokenizer is null or <= NarrowVocabulary;

    /// <returns>Bytes of the record.</returns>
    public static int Write(ArrayBufferWriter<byte> to, ExampleHead head, ReadOnlySpan<int> ids, ReadOnlySpan<int> labels, bool narrow)
    {
        var before = to.WrittenCount;
        var areRuns = AreRuns(ids, labels);
        WriteVarint(to, (uint)head.Row);
        WriteVarint(to, (areRuns ? 0u : 1u) + (head.IsJudged ? 2u : 0u) + (4 * (uint)((head.Class + 1) ?? 0)));
        if (head.IsJudged)
        {
            WriteJudgements(to, head);
        }

        if (areRuns)
        {
            WriteRuns(to, labels);
        }
        else
        {
            WriteWide(to, labels);
        }

        if (narrow)
        {
            WriteNarrow(to, ids);
        }
        else
        {
            WriteWide(to, ids);
        }

        return to.WrittenCount - before;
    }

    /// <param name="length">Tokens of the sequence.</param>
    public static Example Read(ReadOnlySpan<byte> record, int length, bool narrow)
    {
        var row = (int)ReadVarint(ref record);
        var ids = new int[length];
        var labels = new int[length];
        Array.Fill(labels, Example.Ignored);
        var kind = ReadVarint(ref record);
        int? rowClass = kind >> 2 == 0 ? null : (int)(kind >> 2) - 1;
        var head = (kind & 2) == 0 ? new ExampleHead(row, rowClass) : ReadJudgements(ref record, new(row, rowClass));
        if ((kind & 1) == 1)
        {
            ReadWide(ref record, labels);
            ReadIds(record, ids, narrow);
            return Of(head, ids, labels);
        }

        var runs = record;
        var count = (int)ReadVarint(ref runs);
        record = runs;
        for (var i = 0; i < count; i++)
        {
            ReadVarint(ref record);
        }

        ReadIds(record, ids, narrow);
        var at = 0;
        for (var i = 0; i < count; i++)
        {
            var run = (int)ReadVarint(ref runs);
            if (i % 2 == 1)
            {
                ids.AsSpan(at, run).CopyTo(labels.AsSpan(at));
            }

            at += run;
        }

        return Of(head, ids, labels);
    }

    private static Example Of(ExampleHead head, int[] ids, int[] labels) => new(ids, labels, head.Row)
    {
        Class = head.Class,
        Ends = head.Ends,
        Value = head.Value,
        Category = head.Category,
        IsTie = head.IsTie,
        Capability = head.Capability,
    };

    private static void WriteJudgements(ArrayBufferWriter<byte> to, ExampleHead head)
    {
        WriteVarint(to, (uint)(head.Ends?.Count ?? 0));
        foreach (var end in head.Ends ?? [])
        {
            WriteVarint(to, (uint)end);
        }

        WriteVarint(to, (head.Value is null ? 0u : 1u) + (head.IsTie ? 2u : 0u));
        if (head.Value is { } value)
        {
            BinaryPrimitives.WriteSingleLittleEndian(to.GetSpan(sizeof(float)), value);
            to.Advance(sizeof(float));
        }

        WriteName(to, head.Category);
        WriteName(to, head.Capability);
    }

    private static void WriteName(ArrayBufferWriter<byte> to, string? name)
    {
        var bytes = name is null ? [] : Encoding.UTF8.GetBytes(name);
        WriteVarint(to, name is null ? 0u : (uint)bytes.Length + 1);
        to.Write(bytes);
    }

    private static string? ReadName(ref ReadOnlySpan<byte> record)
    {
        if (ReadVarint(ref record) is not (> 0 and var length))
        {
            return null;
        }

        var name = Encoding.UTF8.GetString(record[..((int)length - 1)]);
        record = record[((int)length - 1)..];
        return name;
    }

    private static ExampleHead ReadJudgements(ref ReadOnlySpan<byte> record, ExampleHead head)
    {
        var ends = new int[ReadVarint(ref record)];
        for (var part = 0; part < ends.Length; part++)
        {
            ends[part] = (int)ReadVarint(ref record);
        }

        float? value = null;
        var says = ReadVarint(ref record);
        if ((says & 1) == 1)
        {
            value = BinaryPrimitives.ReadSingleLittleEndian(record);
            record = record[sizeof(float)..];
        }

        var (category, capability) = (ReadName(ref record), ReadName(ref record));
        return head with
        {
            Ends = ends.Length == 0 ? null : ends,
            Value = value,
            Category = category,
            IsTie = (says & 2) == 2,
            Capability = capability,
        };
    }

    private static bool AreRuns(ReadOnlySpan<int> ids, ReadOnlySpan<int> labels)
    {
        for (var i = 0; i < ids.Length; i++)
        {
            if (labels[i] != Example.Ignored && labels[i] != ids[i])
            {
                return false;
            }
        }

        return true;
    }

    private static void WriteRuns(ArrayBufferWriter<byte> to, ReadOnlySpan<int> labels)
    {
        var runs = 0u;
        for (var (at, carries) = (0, false); at < labels.Length; carries = !carries)
        {
            at += RunAt(labels[at..], carries);
            runs++;
        }

        WriteVarint(to, runs);
        for (var (at, carries) = (0, false); at < labels.Length; carries = !carries)
        {
            var run = RunAt(labels[at..], carries);
            WriteVarint(to, (uint)run);
            at += run;
        }
    }

    private static int RunAt(ReadOnlySpan<int> labels, bool carries)
    {
        var end = carries ? labels.IndexOf(Example.Ignored) : labels.IndexOfAnyExcept(Example.Ignored);
        return end < 0 ? labels.Length : end;
    }

    private static void WriteNarrow(ArrayBufferWriter<byte> to, ReadOnlySpan<int> ids)
    {
        var bytes = to.GetSpan(ids.Length * sizeof(ushort));
        for (var i = 0; i < ids.Length; i++)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(bytes[(i * sizeof(ushort))..], (ushort)ids[i]);
        }

        to.Advance(ids.Length * sizeof(ushort));
    }

    private static void WriteWide(ArrayBufferWriter<byte> to, ReadOnlySpan<int> values)
    {
        var bytes = to.GetSpan(values.Length * sizeof(int));
        for (var i = 0; i < values.Length; i++)
        {
            BinaryPrimitives.WriteInt32LittleEndian(bytes[(i * sizeof(int))..], values[i]);
        }

        to.Advance(values.Length * sizeof(int));
    }

    private static void ReadIds(ReadOnlySpan<byte> record, int[] ids, bool narrow)
    {
        if (!narrow)
        {
            ReadWide(ref record, ids);
            return;
        }

        for (var i = 0; i < ids.Length; i++)
        {
            ids[i] = BinaryPrimitives.ReadUInt16LittleEndian(record[(i * sizeof(ushort))..]);
        }
    }

    private static void ReadWide(ref ReadOnlySpan<byte> record, int[] values)
    {
        for (var i = 0; i < values.Length; i++)
        {
            values[i] = BinaryPrimitives.ReadInt32LittleEndian(record[(i * sizeof(int))..]);
        }

        record = record[(values.Length * sizeof(int))..];
    }

    private static void WriteVarint(ArrayBufferWriter<byte> to, uint value)
    {
        var bytes = to.GetSpan(LongestVarint);
        var count = 0;
        for (; value >= 0x80; value >>= 7)
        {
            bytes[count++] = (byte)(value | 0x80);
        }

        bytes[count++] = (byte)value;
        to.Advance(count);
    }

    private static uint ReadVarint(ref ReadOnlySpan<byte> bytes)
    {
        var (value, count) = (0u, 0);
        while (bytes[count] >= 0x80)
        {
            value |= (uint)(bytes[count] & 0x7F) << (7 * count++);
        }

        value |= (uint)bytes[count] << (7 * count);
        bytes = bytes[(count + 1)..];
        return value;
    }
}
