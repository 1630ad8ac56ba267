using System.Security.Cryptography;
using System.Text.Json;

namespace TrainingService.Training.Checkpoints;

/// <summary>One file of an artifact.</summary>
/// <param name="Path">Below the manifest's folder, with forward slashes.</param>
/// <param name="Sha256">Lower-case hexadecimal.</param>
public sealed record ManifestFile(string Path, long Bytes, string Sha256, string ContentType);

/// <summary><c>manifest.json</c>: every file of a folder. It is written last, so a folder without one, or with a wrong one, is not complete.</summary>
public sealed record Manifest(IReadOnlyList<ManifestFile> Files)
{
    public const string FileName = "manifest.json";

    private const int LargestBytes = 16 << 20;
    private const int BufferBytes = 1 << 20;

    /// <summary>Hashes every file below <paramref name="folder"/> but dot files and parts, and writes the manifest atomically.</summary>
    /// <remarks>Every file that it names is on the disk before it is, so a power loss leaves no manifest without its files.</remarks>
    public static Manifest Write(string folder)
    {
        var files = Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)
            .Select(file => (Full: file, Name: System.IO.Path.GetRelativePath(folder, file).Replace('\\', '/')))
            .Where(file => file.Name != FileName && !file.Name.Split('/').Any(part => part.StartsWith('.') || part.EndsWith(".part", StringComparison.Ordinal)))
            .OrderBy(file => file.Name, StringComparer.Ordinal)
            .ToArray();
        foreach (var (full, _) in files)
        {
            DurableFile.Flush(full);
        }

        foreach (var inside in files.Select(file => System.IO.Path.GetDirectoryName(file.Full)!).Distinct())
        {
            DurableFile.FlushFolder(inside);
        }

        var manifest = new Manifest(
            [.. files.Select(file => new ManifestFile(file.Name, new FileInfo(file.Full).Length, Hash(file.Full, default), ContentTypeOf(file.Name)))]);
        DurableFile.Write(System.IO.Path.Combine(folder, FileName), JsonSerializer.SerializeToUtf8Bytes(manifest, SpecJson.Options));
        return manifest;
    }

    /// <summary>Whether every file that the manifest of <paramref name="folder"/> names is there with its length and hash.</summary>
    /// <remarks>The manifest may come from anywhere: nothing outside the folder is read, however it is named.</remarks>
    /// <param name="problem">What is wrong, in a few words; null when nothing is.</param>
    public static bool Verify(string folder, out string? problem, CancellationToken ct = default)
    {
        try
        {
            problem = Problem(folder, ct);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            problem = $"a file cannot be read: {e.Message.TrimEnd('.')}";
        }

        return problem is null;
    }

    /// <summary>The manifest of a folder, as it stands there.</summary>
    /// <exception cref="JsonException">It is no manifest.</exception>
    public static Manifest Read(string folder)
    {
        var path = System.IO.Path.Combine(folder, FileName);
        return new FileInfo(path).Length <= LargestBytes
            && JsonSerializer.Deserialize<Manifest>(File.ReadAllBytes(path), SpecJson.Options) is { Files: { } files } manifest
            && files.All(file => file is { Path: not null, Sha256: not null })
            ? manifest
            : throw new JsonException($"{FileName} is no manifest.");
    }

    private static string? Problem(string folder, CancellationToken ct)
    {
        if (!File.Exists(System.IO.Path.Combine(folder, FileName)))
        {
            return $"{FileName} is missing";
        }

        Manifest manifest;
        try
        {
            manifest = Read(folder);
        }
        catch (Exception e) when (HostileJson.IsMalformed(e))
        {
            return $"{FileName} cannot be read";
        }

        foreach (var file in manifest.Files)
        {
            if (!IsInside(folder, file.Path))
            {
                return $"{FileName} names a file outside its folder";
            }

            var full = System.IO.Path.Combine(folder, file.Path);
            if (!File.Exists(full))
            {
                return $"{file.Path} is missing";
            }

            if (new FileInfo(full).Length != file.Bytes || Hash(full, ct) != file.Sha256)
            {
                return $"{file.Path} differs from its hash";
            }
        }

        return manifest.Files.Count > 0 ? null : $"{FileName} names no file";
    }

    /// <summary>Whether a name leads to a place below <paramref name="folder"/>, by plain parts and not through a link.</summary>
    private static bool IsInside(string folder, string name)
    {
        if (name.AsSpan().IndexOfAny("\\:\0") >= 0)
        {
            return false;
        }

        var at = folder;
        foreach (var part in name.Split('/'))
        {
            at = System.IO.Path.Combine(at, part);
            if (part is "" or "." or ".." || new FileInfo(at).LinkTarget is not null)
            {
                return false;
            }
        }

        return true;
    }

    private static string Hash(string path, CancellationToken ct)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 1);
        var buffer = new byte[(int)Math.Min(BufferBytes, stream.Length + 1)];
        int read;
        while ((read = stream.Read(buffer)) > 0)
        {
            ct.ThrowIfCancellationRequested();
            hash.AppendData(buffer, 0, read);
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    private static string ContentTypeOf(string name) => System.IO.Path.GetExtension(name) switch
    {
        ".json" => "application/json",
        ".jsonl" => "application/jsonl",
        ".csv" => "text/csv",
        ".svg" => "image/svg+xml",
        ".md" => "text/markdown",
        ".txt" or ".jinja" => "text/plain",
        _ => "application/octet-stream",
    };
}
