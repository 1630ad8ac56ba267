using System.Security.Cryptography;
using System.Text.Json;

namespace TrainingService.Training.Data.Stored;

/// <summary>Writes a <see cref="TokenFile"/>, front to end.</summary>
internal sealed class TokenFileWriter(string path) : IDisposable
{
    private readonly FileStream _file = new(
        path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.Read | FileShare.Delete, bufferSize: 1 << 20, FileOptions.None);
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private long _records;

    /// <param name="records">Of the sequences that follow on those before.</param>
    public void Append(ReadOnlySpan<byte> records)
    {
        Put(records);
        _records += records.Length;
    }

    /// <summary>Writes a file.</summary>
    /// <param name="make">Appends the records, and says what else belongs into the file; null: there shall be none.</param>
    public static (RowTable Table, TokenFileHead Head, string Sha256)? Write(
        string path, Func<TokenFileWriter, (RowTable Table, TokenFileHead Head)?> make)
    {
        using var writer = new TokenFileWriter(path);
        return make(writer) is var (table, head) ? (table, head, writer.Finish(table, head)) : null;
    }

    public void Dispose()
    {
        _file.Dispose();
        _hash.Dispose();
    }

    /// <summary>Completes the file. It is not forced to the disk: one that a power loss cut off is recognised, and made again.</summary>
    /// <returns>Hash of the records.</returns>
    private string Finish(RowTable table, TokenFileHead head)
    {
        var records = _hash.GetHashAndReset();
        table.Write(Put);
        var json = JsonSerializer.SerializeToUtf8Bytes(head);
        Put(json);
        var rest = _hash.GetHashAndReset();
        _file.Write(BitConverter.GetBytes(_records));
        _file.Write(BitConverter.GetBytes(RowTable.BytesOf(head.UsableRows, head.Examples, head.Pairs)));
        _file.Write(BitConverter.GetBytes((long)json.Length));
        _file.Write(records);
        _file.Write(rest);
        _file.Write(BitConverter.GetBytes(TokenFile.Mark));
        _file.Flush();
        return Convert.ToHexStringLower(records);
    }

    private void Put(ReadOnlySpan<byte> bytes)
    {
        _hash.AppendData(bytes);
        _file.Write(bytes);
    }
}
