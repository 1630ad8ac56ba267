using System.Buffers;
using System.Text;

namespace TrainingService.Training.Data.Rows;

/// <summary>The bytes of one row while it is read. Refuses a row that would not end.</summary>
internal sealed class RowBytes
{
    /// <summary>Longest row, bytes: far above any text that a context window holds. Tokenizing takes some forty times this in memory.</summary>
    public const int Limit = 16 * 1024 * 1024;

    private readonly ArrayBufferWriter<byte> _bytes = new();

    public int Length => _bytes.WrittenCount;

    public ReadOnlySpan<byte> Span => _bytes.WrittenSpan;

    public void Clear() => _bytes.ResetWrittenCount();

    public void Add(byte value) => Add([value]);

    public void Add(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length > Limit - Length)
        {
            throw new RowException("row_too_large", $"the row is longer than {Limit / (1024 * 1024)} MiB; divide its text into several rows");
        }

        _bytes.Write(bytes);
    }

    /// <exception cref="RowException">The bytes are not UTF-8.</exception>
    public void CheckUtf8() => CheckUtf8(Span);

    /// <exception cref="RowException">The bytes are not UTF-8.</exception>
    public static void CheckUtf8(ReadOnlySpan<byte> bytes)
    {
        if (System.Text.Unicode.Utf8.IsValid(bytes))
        {
            return;
        }

        var at = 0;
        var column = 1;
        while (Rune.DecodeFromUtf8(bytes[at..], out var rune, out var consumed) == OperationStatus.Done)
        {
            at += consumed;
            column += rune.Utf16SequenceLength;
        }

        throw new RowException(new(
            "invalid_utf8", $"byte {at + 1} of the row (0x{bytes[at]:X2}) is not valid UTF-8; save the file as UTF-8", Column: column));
    }
}
