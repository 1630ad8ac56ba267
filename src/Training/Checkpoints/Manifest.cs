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

    /// <summary>Hashes every file below <paramref name="folder"/> but dot files and parts, and writes the manifest atomically.</summary>
    public static Manifest Write(string folder)
    {
        var files = Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)
            .Select(file => (Full: file, Name: System.IO.Path.GetRelativePath(folder, file).Replace('\\', '/')))
            .Where(file => file.Name != FileName && !file.Name.Split('/').Any(part => part.StartsWith('.') || part.EndsWith(".part", StringComparison.Ordinal)))
            .OrderBy(file => file.Name, StringComparer.Ordinal)
            .Select(file => new ManifestFile(file.Name, new FileInfo(file.Full).Length, Hash(file.Full), ContentTypeOf(file.Name)))
            .ToArray();
        var manifest = new Manifest(files);
        var path = System.IO.Path.Combine(folder, FileName);
        File.WriteAllText(path + ".part", JsonSerializer.Serialize(manifest, SpecJson.Options));
        File.Move(path + ".part", path, overwrite: true);
        return manifest;
    }

    /// <summary>Whether every file that the manifest of <paramref name="folder"/> names is there with its length and hash.</summary>
    /// <param name="problem">What is wrong, in words; null when nothing is.</param>
    public static bool Verify(string folder, out string? problem)
    {
        problem = Problem(folder);
        return problem is null;
    }

    private static string? Problem(string folder)
    {
        var path = System.IO.Path.Combine(folder, FileName);
        if (!File.Exists(path))
        {
            return $"{FileName} is missing";
        }

        Manifest? manifest;
        try
        {
            manifest = JsonSerializer.Deserialize<Manifest>(File.ReadAllBytes(path), SpecJson.Options);
        }
        catch (JsonException)
        {
            return $"{FileName} cannot be read";
        }

        foreach (var file in manifest?.Files ?? [])
        {
            var full = System.IO.Path.Combine(folder, file.Path);
            if (!File.Exists(full))
            {
                return $"{file.Path} is missing";
            }

            if (new FileInfo(full).Length != file.Bytes || Hash(full) != file.Sha256)
            {
                return $"{file.Path} differs from its hash";
            }
        }

        return manifest is { Files.Count: > 0 } ? null : $"{FileName} names no file";
    }

    private static string Hash(string path)
    {
        using var stream = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
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
