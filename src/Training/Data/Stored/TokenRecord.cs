using System.Buffers;
using System.Buffers.Binary;

namespace TrainingService.Training.Data.Stored;

/// <summary>One sequence as bytes: its row, its class, which of its tokens carry loss, and its token ids in two bytes each, or four.</summary>
/// <remarks>
/// The row, and the kind of labels (0: as runs, 1: as numbers) plus twice the number of the class (0: none, and from 1), are variable-length
/// integers (seven bits a byte, the lowest first). Runs: their number, and the lengths of alternating runs without and with loss, the first
/// one without. Numbers: four bytes each. Ids and numbers are little-endian.
/// </remarks>
internal static class TokenRecord
{
    private const int NarrowVocabulary = 1 << 16;
    private const int LongestVarint = 5;

    /// <summary>Whether every id of a model and its tokenizer fits into two bytes.</summary>
    public static bool IsNarrow(int? model, int? tokenizer) => model <= NarrowVocabulary && tokenizer is null or <= NarrowVocabulary;

    /// <param name="rowClass">See <see cref="Example.Class"/>.</param>
    /// <returns>Bytes of the record.</returns>
    public static int Write(ArrayBufferWriter<byte> to, int row, int? rowClass, ReadOnlySpan<int> ids, ReadOnlySpan<int> labels, bool narrow)
    {
        var before = to.WrittenCount;
        var areRuns = AreRuns(ids, labels);
        WriteVarint(to, (uint)row);
        WriteVarint(to, (areRuns ? 0u : 1u) + (2 * (uint)((rowClass + 1) ?? 0)));
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
        int? rowClass = kind >> 1 == 0 ? null : (int)(kind >> 1) - 1;
        if ((kind & 1) == 1)
        {
            ReadWide(ref record, labels);
            ReadIds(record, ids, narrow);
            return new(ids, labels, row) { Class = rowClass };
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

        return new(ids, labels, row) { Class = rowClass };
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
