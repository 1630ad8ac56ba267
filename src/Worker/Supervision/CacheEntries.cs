using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Worker.Supervision;

/// <summary>
/// Which folders of the cache are in use, and which go when it grows too large: the one used longest ago first, and none that an
/// attempt of any process uses.
/// </summary>
/// <remarks>
/// Beside each folder lies a lock that its users share; its time is that of the last use. Taking one and removing a folder happen
/// behind one gate, so that nobody is handed what is just going.
/// </remarks>
internal sealed partial class CacheEntries(
    WorkerPaths paths, IOptions<WorkerOptions> options, TimeProvider clock, ILogger<CacheEntries> logger)
{
    private static readonly TimeSpan GatePoll = TimeSpan.FromMilliseconds(20);

    /// <summary>Marks a folder of the cache as used, until the answer is disposed; null when it is gone, and must be fetched again.</summary>
    public async Task<IDisposable?> TryUseAsync(string folder, CancellationToken cancellationToken)
    {
        using var gate = await GateAsync(cancellationToken);
        if (!Directory.Exists(folder))
        {
            return null;
        }

        var mark = LockFile.TryTake(folder + ".lock", shared: true)
            ?? throw new IOException($"'{folder}.lock' is held by something that is no worker.");
        File.SetLastWriteTimeUtc(folder + ".lock", clock.GetUtcNow().UtcDateTime);
        return mark;
    }

    /// <summary>Removes what dead processes left half done, and unused folders until the cache has its size again.</summary>
    /// <param name="all">Whether every unused folder goes, since the disk is full.</param>
    public async Task MakeRoomAsync(bool all, CancellationToken cancellationToken)
    {
        try
        {
            if (Directory.Exists(paths.Cache))
            {
                RemoveParts();
                await EvictAsync(all ? 0 : options.Value.CacheBytes, cancellationToken);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            NotRemoved(paths.Cache, e);   // another worker may have been faster; the next attempt looks again
        }
    }

    /// <summary>A folder with a dot before its name is not complete yet, or on its way out; whoever works on it holds its lock.</summary>
    private void RemoveParts()
    {
        foreach (var part in Directory.EnumerateDirectories(paths.Cache, ".*").ToList())
        {
            using var held = LockFile.TryTake(part + ".lock");
            if (held is not null)
            {
                Directory.Delete(part, recursive: true);
                File.Delete(part + ".lock");
            }
        }
    }

    private async Task EvictAsync(long limit, CancellationToken cancellationToken)
    {
        var entries = new DirectoryInfo(paths.Cache).EnumerateDirectories().Where(folder => !folder.Name.StartsWith('.'))
            .Select(folder => (Folder: folder.FullName, Bytes: SizeOf(folder), Used: LastUse(folder)))
            .OrderBy(entry => entry.Used).ToList();
        var total = entries.Sum(entry => entry.Bytes);
        foreach (var (folder, bytes, _) in entries)
        {
            if (total <= limit)
            {
                return;
            }

            if (await TakeOutAsync(folder, cancellationToken) is { } trash)
            {
                Directory.Delete(trash, recursive: true);
                File.Delete(trash + ".lock");
                total -= bytes;
                Evicted(folder, bytes);
            }
        }
    }

    /// <returns>Where the folder lies now, out of everybody's sight; null: it is in use, or gone.</returns>
    private async Task<string?> TakeOutAsync(string folder, CancellationToken cancellationToken)
    {
        using var gate = await GateAsync(cancellationToken);
        using var held = LockFile.TryTake(folder + ".lock");
        if (held is null || !Directory.Exists(folder))
        {
            return null;
        }

        var trash = Path.Combine(paths.Cache, $".{Guid.NewGuid():N}");
        Directory.Move(folder, trash);
        File.Delete(folder + ".lock");
        return trash;
    }

    private async Task<FileStream> GateAsync(CancellationToken cancellationToken)
    {
        Directory.CreateDirectory(paths.Cache);
        while (true)
        {
            if (LockFile.TryTake(Path.Combine(paths.Cache, ".gate")) is { } gate)
            {
                return gate;
            }

            await Task.Delay(GatePoll, clock, cancellationToken);
        }
    }

    private static long SizeOf(DirectoryInfo folder) => folder.EnumerateFiles("*", SearchOption.AllDirectories).Sum(file => file.Length);

    private static DateTime LastUse(DirectoryInfo folder)
    {
        var mark = new FileInfo(folder.FullName + ".lock");
        return mark.Exists ? mark.LastWriteTimeUtc : folder.LastWriteTimeUtc;
    }

    [LoggerMessage(82, LogLevel.Information, "Removed {Folder} from the cache: {Bytes} bytes")]
    private partial void Evicted(string folder, long bytes);

    [LoggerMessage(83, LogLevel.Warning, "Something in {Folder} could not be removed")]
    private partial void NotRemoved(string folder, Exception exception);
}
