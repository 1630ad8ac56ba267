using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data.Rows;
using TrainingService.Training.Data.Stored;

namespace TrainingService.Training.Data;

/// <summary>Token sequences by what they were made from: the same file, settings and tokenizer are tokenised once.</summary>
/// <remarks>
/// Each entry is a folder that appears complete or not at all, with a lock beside it that its users share and whose time is that of the
/// last use. A name with a dot in front is in the making, or on its way out. Whoever owns the folder may remove entries whose lock nobody
/// holds, at any time.
/// </remarks>
/// <param name="folder">Created when missing.</param>
/// <param name="tokenizerSha256">Of the tokenizer's files; null: there is none.</param>
/// <param name="clock">Null: the system's.</param>
public sealed class TokenCache(string folder, string? tokenizerSha256, TimeProvider? clock = null)
{
    private const string FileName = "tokens.bin";

    /// <summary>Hash of the files of a tokenizer.</summary>
    public static string Sha256Of(IEnumerable<string> tokenizerFiles, CancellationToken ct)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var path in tokenizerFiles)
        {
            hash.AppendData(Encoding.UTF8.GetBytes($"{Path.GetFileName(path)}\0{Sha256Of(path, "model", ct)}\0"));
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>Hash of all that decides the tokens of a file: its bytes, the ending of its name, how it is read, and this program.</summary>
    /// <param name="param">Spec member that names the file, for errors.</param>
    internal string KeyOf(string path, string param, DataConfig config, RowUse use, int vocabulary, CancellationToken ct)
    {
        var name = Path.GetFileName(path);
        var known = new
        {
            Program = typeof(TokenCache).Module.ModuleVersionId,   // another build may read rows or split words in another way
            File = Sha256Of(path, param, ct),
            Ending = name.Contains('.', StringComparison.Ordinal) ? name[name.IndexOf('.', StringComparison.Ordinal)..].ToUpperInvariant() : "",
            config.Format,
            Columns = config.Columns.OrderBy(column => column.Key, StringComparer.Ordinal),
            config.MaxLength,
            config.TrainOnPrompt,
            config.Classes,
            Use = use,
            Vocabulary = vocabulary,
            Tokenizer = tokenizerSha256,
        };
        return Convert.ToHexStringLower(SHA256.HashData(JsonSerializer.SerializeToUtf8Bytes(known)));
    }

    /// <summary>The sequences that were made from <paramref name="key"/>; null when they have to be made.</summary>
    internal TokenFile? TryOpen(string key, CancellationToken ct)
    {
        var entry = EntryOf(key);
        if (!Directory.Exists(entry) || LockFile.TryTake(entry + ".lock", shared: true) is not { } use)
        {
            return null;
        }

        TokenFile? found = null;
        try
        {
            found = TokenFile.TryOpen(Path.Combine(entry, FileName), key, use, ct);
            if (found is not null)
            {
                File.SetLastWriteTimeUtc(entry + ".lock", (clock ?? TimeProvider.System).GetUtcNow().UtcDateTime);
            }

            return found;
        }
        finally
        {
            if (found is null)
            {
                use.Dispose();
            }
        }
    }

    /// <summary>Makes the sequences of <paramref name="key"/> and keeps them.</summary>
    /// <param name="make">Writes the records; null: they are not worth keeping.</param>
    /// <returns>Null: they are not.</returns>
    internal TokenFile? Make(string key, Func<TokenFileWriter, (RowTable Table, TokenFileHead Head)?> make)
    {
        Directory.CreateDirectory(folder);
        var part = Path.Combine(folder, $".{Guid.NewGuid():N}");
        using var mine = LockFile.TryTake(part + ".lock");
        Directory.CreateDirectory(part);
        try
        {
            if (TokenFileWriter.Write(Path.Combine(part, FileName), make) is not { } made)
            {
                return null;
            }

            var entry = EntryOf(key);
            var use = LockFile.TryTake(entry + ".lock", shared: true);
            try
            {
                Publish(part, entry);
                return TokenFile.OpenMade(Path.Combine(entry, FileName), made.Table, made.Head, made.Sha256, use);
            }
            catch (IOException)
            {
                use?.Dispose();
                throw;
            }
        }
        finally
        {
            if (Directory.Exists(part))
            {
                Directory.Delete(part, recursive: true);
            }

            File.Delete(part + ".lock");
        }
    }

    private string EntryOf(string key) => Path.Combine(folder, $"tokens-{key}");

    /// <summary>Gives a complete folder its name, in place of one that turned out not to be whole.</summary>
    private static void Publish(string part, string entry)
    {
        if (Directory.Exists(entry))
        {
            Directory.Move(entry, part + "-old");
            Directory.Delete(part + "-old", recursive: true);
        }

        try
        {
            Directory.Move(part, entry);
        }
        catch (IOException) when (Directory.Exists(entry))
        {
            // Another run made the same sequences meanwhile.
        }
    }

    private static string Sha256Of(string path, string param, CancellationToken ct)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var stream = RowFile.Open(path, param);
        var buffer = new byte[1 << 20];
        int read;
        while ((read = stream.Read(buffer)) > 0)
        {
            ct.ThrowIfCancellationRequested();
            hash.AppendData(buffer, 0, read);
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
