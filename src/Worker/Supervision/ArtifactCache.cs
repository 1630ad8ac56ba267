using System.Security.Cryptography;
using TrainingService.Domain.Artifacts;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Worker.Supervision;

/// <summary>One file to have locally.</summary>
/// <param name="Path">Below the folder it belongs to, with forward slashes.</param>
internal sealed record CachedFile(string Path, string StorageKey, string Sha256, long Bytes);

/// <summary>
/// Files from the artifact store on the local disk. A folder's name is a hash over the content of its files, so nothing in it ever
/// changes, and it appears complete or not at all.
/// </summary>
internal sealed class ArtifactCache(IArtifactStore store, WorkerPaths paths, TimeProvider clock)
{
    private static readonly TimeSpan NotWorthALine = TimeSpan.FromSeconds(5);

    /// <summary>A folder with these files, each checked against its sha256.</summary>
    /// <param name="what">What they are, in the words of the job's owner.</param>
    /// <param name="reports">Told how far the download is.</param>
    /// <exception cref="DamagedFileException">A file is missing, or is not what it was when it was stored.</exception>
    public async Task<string> FolderAsync(
        string what, IReadOnlyList<CachedFile> files, ReportBuffer reports, CancellationToken cancellationToken)
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
            var progress = MeterFor(what, files, reports);
            foreach (var file in files)
            {
                await DownloadAsync(file, part, progress, cancellationToken);
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

    /// <summary>What is told of a download from the artifact store.</summary>
    public DownloadMeter MeterFor(string what, IReadOnlyList<CachedFile> files, ReportBuffer reports) =>
        new(what, "the artifact store", files.Sum(file => file.Bytes), NotWorthALine, reports, clock);

    /// <summary>Downloads one file below a folder and checks it.</summary>
    public async Task DownloadAsync(CachedFile file, string folder, DownloadMeter progress, CancellationToken cancellationToken)
    {
        var path = Path.GetFullPath(Path.Combine(folder, file.Path));
        if (!path.StartsWith(Path.GetFullPath(folder) + Path.DirectorySeparatorChar, StringComparison.Ordinal))
        {
            throw new DamagedFileException($"'{file.Path}' would leave its folder.");
        }

        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        await using var content = await store.OpenReadAsync(file.StorageKey, null, cancellationToken)
            ?? throw new DamagedFileException($"'{file.StorageKey}' is missing in the artifact store.");
        await using var target = new FileStream(path, FileMode.Create, FileAccess.Write, FileShare.None, bufferSize: 0, useAsync: true);
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = new byte[1 << 16];
        while (await content.ReadAsync(buffer, cancellationToken) is > 0 and var read)
        {
            hash.AppendData(buffer, 0, read);
            await target.WriteAsync(buffer.AsMemory(0, read), cancellationToken);
            progress.At(target.Position);
        }

        var sha256 = Convert.ToHexStringLower(hash.GetHashAndReset());
        if (sha256 != file.Sha256)
        {
            throw new DamagedFileException($"'{file.StorageKey}' has sha256 {sha256}; it was stored with {file.Sha256}.");
        }

        progress.Finished(file.Bytes);
    }
}
