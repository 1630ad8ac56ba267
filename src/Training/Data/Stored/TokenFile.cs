using System.Buffers;
using System.Collections;
using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;

namespace TrainingService.Training.Data.Stored;

/// <summary>What was found of a file besides its rows.</summary>
/// <param name="Key">Of what the tokens were made from; see <see cref="TokenCache.KeyOf"/>.</param>
/// <param name="Layout">Null when the file holds no rows.</param>
/// <param name="Narrow">Whether ids take two bytes.</param>
/// <param name="Pairs">Rows that are pairs of answers.</param>
/// <param name="Patterns">See <see cref="PairFigures.Patterns"/>.</param>
internal sealed record TokenFileHead(
    string Key, string? Container, string? Layout, IReadOnlyList<string> IgnoredColumns, IReadOnlyList<string> OtherLayouts, int Rows,
    int UsableRows, int Examples, bool Narrow, int Pairs, IReadOnlyList<PhrasePattern> Patterns);

/// <summary>The token sequences of one file of rows, on the disk; in memory are some thirty bytes of each row.</summary>
/// <remarks>
/// Layout: the records (<see cref="TokenRecord"/>), the columns of the table (<see cref="RowTable"/>), the head as JSON, and at the end
/// their lengths, the SHA-256 of the records, that of all after the records, and a mark. A file that was cut off or changed is none.
/// Records are read by position, not mapped: a mapped file counts as memory of the process.
/// </remarks>
internal sealed class TokenFile : IExamples, IDisposable
{
    internal const int TailBytes = (3 * sizeof(long)) + (2 * SHA256.HashSizeInBytes) + sizeof(ulong);
    internal const ulong Mark = 0x33304E454B4F54;   // TOKEN03

    private const int BufferBytes = 1 << 20;

    private readonly SafeFileHandle _handle;
    private readonly IDisposable? _use;

    private TokenFile(SafeFileHandle handle, RowTable table, TokenFileHead head, string sha256, IDisposable? use)
    {
        (_handle, Table, Head, Sha256, _use) = (handle, table, head, sha256, use);
    }

    public RowTable Table { get; }

    public TokenFileHead Head { get; }

    /// <summary>Of the records: equal tokens have equal ones.</summary>
    public string Sha256 { get; }

    public int Count => Table.Examples;

    public Example this[int index]
    {
        get
        {
            var (start, length) = Table.PlaceOf(index);
            var buffer = ArrayPool<byte>.Shared.Rent(length);
            try
            {
                ReadFully(_handle, buffer.AsSpan(0, length), start);
                return TokenRecord.Read(buffer.AsSpan(0, length), Table.LengthOf(index), Head.Narrow);
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(buffer);
            }
        }
    }

    public int LengthOf(int index) => Table.LengthOf(index);

    /// <summary>Opens a file that was made from <paramref name="key"/>.</summary>
    /// <param name="use">Disposed with the file.</param>
    /// <returns>Null: it is not there, not whole, or made from something else.</returns>
    public static TokenFile? TryOpen(string path, string key, IDisposable? use, CancellationToken ct)
    {
        if (!File.Exists(path))
        {
            return null;
        }

        var handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete);
        try
        {
            if (Read(handle, ct) is var (table, head, sha256) && head.Key == key)
            {
                var found = new TokenFile(handle, table, head, sha256, use);
                handle = null;
                return found;
            }

            return null;
        }
        finally
        {
            handle?.Dispose();
        }
    }

    /// <summary>Opens a file that was just written.</summary>
    public static TokenFile OpenMade(string path, RowTable table, TokenFileHead head, string sha256, IDisposable? use) =>
        new(File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete), table, head, sha256, use);

    /// <summary>A file that goes when it is closed.</summary>
    public static TokenFile? MakeTemporary(Func<TokenFileWriter, (RowTable Table, TokenFileHead Head)?> make)
    {
        var path = Path.Combine(Path.GetTempPath(), $"tokens-{Guid.NewGuid():N}");
        try
        {
            return TokenFileWriter.Write(path, make) is var (table, head, sha256)
                ? new(
                    File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete, FileOptions.DeleteOnClose),
                    table, head, sha256, use: null)
                : null;
        }
        catch
        {
            File.Delete(path);
            throw;
        }
    }

    public IEnumerator<Example> GetEnumerator() => Enumerable.Range(0, Count).Select(index => this[index]).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    public void Dispose()
    {
        _handle.Dispose();
        _use?.Dispose();
    }

    private static (RowTable Table, TokenFileHead Head, string Sha256)? Read(SafeFileHandle handle, CancellationToken ct)
    {
        var length = RandomAccess.GetLength(handle);
        var tail = new byte[TailBytes];
        if (length < TailBytes)
        {
            return null;
        }

        ReadFully(handle, tail, length - TailBytes);
        var (records, table, head) = (BitConverter.ToInt64(tail, 0), BitConverter.ToInt64(tail, 8), BitConverter.ToInt64(tail, 16));
        if (BitConverter.ToUInt64(tail, TailBytes - sizeof(ulong)) != Mark || records < 0 || table < 0 || head < 0
            || (Int128)records + table + head + TailBytes != length)
        {
            return null;
        }

        var wantedRecords = tail.AsSpan(3 * sizeof(long), SHA256.HashSizeInBytes);
        var wantedRest = tail.AsSpan((3 * sizeof(long)) + SHA256.HashSizeInBytes, SHA256.HashSizeInBytes);
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Hash(handle, hash, 0, records, ct);
        if (!hash.GetHashAndReset().AsSpan().SequenceEqual(wantedRecords))
        {
            return null;
        }

        Hash(handle, hash, records, table + head, ct);
        if (!hash.GetHashAndReset().AsSpan().SequenceEqual(wantedRest))
        {
            return null;
        }

        var json = new byte[head];
        ReadFully(handle, json, records + table);
        var found = JsonSerializer.Deserialize<TokenFileHead>(json)!;
        if (found.Pairs < 0 || RowTable.BytesOf(found.UsableRows, found.Examples, found.Pairs) != table)
        {
            return null;
        }

        var at = records;
        var rows = RowTable.Read(found.UsableRows, found.Examples, found.Pairs, bytes =>
        {
            ReadFully(handle, bytes, at);
            at += bytes.Length;
        });
        return (rows, found, Convert.ToHexStringLower(wantedRecords));
    }

    private static void Hash(SafeFileHandle handle, IncrementalHash hash, long start, long length, CancellationToken ct)
    {
        var buffer = ArrayPool<byte>.Shared.Rent((int)Math.Clamp(length, 1, BufferBytes));
        for (var done = 0L; done < length;)
        {
            ct.ThrowIfCancellationRequested();
            var part = buffer.AsSpan(0, (int)Math.Min(buffer.Length, length - done));
            ReadFully(handle, part, start + done);
            hash.AppendData(part);
            done += part.Length;
        }

        ArrayPool<byte>.Shared.Return(buffer);
    }

    private static void ReadFully(SafeFileHandle handle, Span<byte> bytes, long at)
    {
        while (!bytes.IsEmpty)
        {
            var read = RandomAccess.Read(handle, bytes, at);
            if (read == 0)
            {
                throw new EndOfStreamException("The file of token sequences has been cut off while it was read.");
            }

            bytes = bytes[read..];
            at += read;
        }
    }
}
