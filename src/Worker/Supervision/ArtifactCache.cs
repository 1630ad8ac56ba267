using System.Security.Cryptography;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Worker.Supervision;

/// <summary>One file to have locally.</summary>
/// <param name="Path">Below the folder it belongs to, with forward slashes.</param>
internal sealed record CachedFile(string Path, string StorageKey, string Sha256);

/// <summary>
/// Files from the artifact store on the local disk. A folder's name is a hash over the content of its files, so nothing in it ever
/// changes, and it appears complete or not at all.
/// </summary>
internal sealed class ArtifactCache(IArtifactStore store, WorkerPaths paths)
{
    /// <summary>A folder with these files, each checked against its sha256.</summary>
    /// <exception cref="DamagedFileException">A file is missing, or is not what it was when it was stored.</exception>
    public async Task<string> FolderAsync(IReadOnlyList<CachedFile> files, CancellationToken cancellationToken)
    {
        var list = string.Join('\n', files.OrderBy(file => file.Path, StringComparer.Ordinal).Select(file => $"{file.Sha256} {file.Path}"));
        var name = Convert.ToHexStringLower(SHA256.HashData(System.Text.Encoding.UTF8.GetBytes(list)));
        var target = Path.Combine(paths.Cache, name);
        if (Directory.Exists(target))
        {
            return target;
        }

        var part = Path.Combine(paths.Cache, $".{Guid.NewGuid():N}");
        Directory.CreateDirectory(paths.Cache);
        using var mine = LockFile.TryTake(part + ".lock");
        Directory.CreateDirectory(part);
        try
        {
            foreach (var file in files)
            {
                await DownloadAsync(file, part, cancellationToken);
            }

            try
            {
                Directory.Move(part, target);
            }
            catch (IOException) when (Directory.Exists(target))
            {
                // Another attempt fetched the same files meanwhile.
            }

            return target;
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

    /// <summary>Downloads one file below a folder and checks it.</summary>
    public async Task DownloadAsync(CachedFile file, string folder, CancellationToken cancellationToken)
    {
        var path = Path.GetFullPath(Path.Combine(folder, file.Path));
        if (!path.StartsWith(Path.GetFullPath(folder) + Path.DirectorySeparatorChar, StringComparison.Ordinal))
        {
            throw new DamagedFileException($"'{file.Path}' would leave its folder.");
        }

        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        await using var content = await store.OpenReadAsync(file.StorageKey, null, cancellationToken)
            ?? throw new DamagedFileException($"'{file.StorageKey}' is missing in the artifact store.");
        await using var target = new FileStream(path, FileMode.Create, FileAccess.ReadWrite, FileShare.None, 1 << 16, useAsync: true);
        await content.CopyToAsync(target, 1 << 16, cancellationToken);
        target.Position = 0;
        var sha256 = Convert.ToHexStringLower(await SHA256.HashDataAsync(target, cancellationToken));
        if (sha256 != file.Sha256)
        {
            throw new DamagedFileException($"'{file.StorageKey}' has sha256 {sha256}; it was stored with {file.Sha256}.");
        }
    }
}
