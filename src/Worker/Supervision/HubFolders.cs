using System.Security.Cryptography;
using System.Text;
using TrainingService.Domain.Models;
using TrainingService.Infrastructure.Hub;
using TrainingService.Training;

namespace TrainingService.Worker.Supervision;

/// <summary>One file of a registered model, as its row lists it.</summary>
/// <param name="Remote">Whether it is fetched from the hub rather than from the artifact store.</param>
internal sealed record ModelFileEntry(string Path, long Bytes, string Sha256, bool Remote = false);

/// <summary>
/// Models from the hub on the local disk. A folder grows under the hash of its content, so that the next attempt, or the next process,
/// goes on where the last one stopped; it moves into the cache when it is whole. A lock on a file keeps others from fetching the same.
/// </summary>
internal sealed class HubFolders(ArtifactCache cache, HubDownload download, WorkerPaths paths, TimeProvider clock)
{
    private static readonly TimeSpan LockPoll = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan KeepUnfinished = TimeSpan.FromDays(7);

    private readonly string _growing = Path.Combine(paths.Root, "hub");

    /// <param name="files">All files of the model, as registered.</param>
    /// <param name="reports">Told how far the download is.</param>
    /// <exception cref="TrainingException">The model cannot be fetched; the message says what to do.</exception>
    public async Task<string> FolderAsync(
        BaseModel model, IReadOnlyList<ModelFileEntry> files, ReportBuffer reports, CancellationToken cancellationToken)
    {
        var name = NameOf(files);
        var target = Path.Combine(paths.Cache, name);
        if (Directory.Exists(target))
        {
            return target;
        }

        Directory.CreateDirectory(_growing);
        Directory.CreateDirectory(paths.Cache);
        await using var single = await LockAsync(Path.Combine(_growing, name + ".lock"), reports, cancellationToken);
        if (Directory.Exists(target))
        {
            return target;   // somebody else fetched it while we waited
        }

        DropAbandoned();
        var folder = Path.Combine(_growing, name);
        Directory.CreateDirectory(folder);
        await FillAsync(model, files, folder, reports, cancellationToken);
        Directory.Move(folder, target);
        return target;
    }

    /// <summary>The name that the cache gives a folder with these files.</summary>
    private static string NameOf(IReadOnlyList<ModelFileEntry> files)
    {
        var list = string.Join('\n', files.OrderBy(file => file.Path, StringComparer.Ordinal).Select(file => $"{file.Sha256} {file.Path}"));
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(list)));
    }

    /// <summary>
    /// The lock goes with the process that holds it, however that ends. Waiting for its download is no standstill: the job that holds the
    /// lock is watched itself.
    /// </summary>
    private async Task<FileStream> LockAsync(string path, ReportBuffer reports, CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException e) when (IsHeld(e))
            {
                reports.Touch();
                await Task.Delay(LockPoll, clock, cancellationToken);
            }
        }
    }

    private static bool IsHeld(IOException e)
    {
        const int wouldBlockLinux = 11;
        const int wouldBlockMac = 35;
        const int sharingViolation = unchecked((int)0x80070020);
        return e.HResult is wouldBlockLinux or wouldBlockMac or sharingViolation;
    }

    private async Task FillAsync(
        BaseModel model, IReadOnlyList<ModelFileEntry> files, string folder, ReportBuffer reports, CancellationToken cancellationToken)
    {
        var id = HubModelId.Of(model.HubId!, model.HubRevision);
        var remote = files.Where(file => file.Remote).ToList();
        var repository = new HubRepository(id, model.HubCommit!, [.. remote.Select(file => new HubFile(file.Path, file.Bytes, file.Sha256, null))]);
        var progress = new DownloadMeter(id.ToString(), "the hub", files.Sum(file => file.Bytes), TimeSpan.Zero, reports, clock);
        foreach (var file in files.Where(file => !file.Remote))
        {
            await cache.DownloadAsync(
                new CachedFile(file.Path, $"{model.Location}/{file.Path}", file.Sha256, file.Bytes), folder, progress, cancellationToken);
        }

        foreach (var file in repository.Files)
        {
            var path = Path.Combine(folder, file.Path);
            if (!File.Exists(path))   // it has its name only after its hash was right
            {
                await FetchAsync(repository, file, path, progress, cancellationToken);
            }

            progress.Finished(file.Bytes);
        }
    }

    private async Task FetchAsync(HubRepository repository, HubFile file, string path, DownloadMeter progress, CancellationToken cancellationToken)
    {
        try
        {
            await download.RunAsync(repository, file, path, progress.At, cancellationToken);
        }
        catch (HubException e) when (e.Fault is HubFault.NotFound or HubFault.Denied or HubFault.Invalid or HubFault.TooLarge)
        {
            throw TrainingException.InvalidData(e.Message, "model", e);
        }
        catch (HubException e)
        {
            throw new TrainingException(FailureCode.Storage, e.Message, "model", e);
        }
    }

    /// <summary>A download that nobody came back to gives its room back. Its lock shows whether somebody does just now.</summary>
    private void DropAbandoned()
    {
        foreach (var folder in new DirectoryInfo(_growing).GetDirectories())
        {
            var newest = folder.EnumerateFiles().Select(file => file.LastWriteTimeUtc).Append(folder.LastWriteTimeUtc).Max();
            if (clock.GetUtcNow() - newest < KeepUnfinished)
            {
                continue;
            }

            try
            {
                using var held = new FileStream(folder.FullName + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
                folder.Delete(recursive: true);
            }
            catch (IOException e) when (IsHeld(e))
            {
                // It is being fetched, slowly.
            }
        }
    }
}
