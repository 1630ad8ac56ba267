using Microsoft.Extensions.Logging;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Worker.Supervision;

/// <summary>
/// The work folders of attempts. Beside each lies a lock that its worker holds, so that workers which share a disk leave each other's
/// alone, and what a dead one left behind is removed by the next.
/// </summary>
internal sealed partial class WorkFolders(WorkerPaths paths, ILogger<WorkFolders> logger)
{
    /// <summary>The folder of an attempt, not there yet.</summary>
    public WorkFolder For(Guid job, int attempt) => new(paths.Attempt(job, attempt), logger);

    /// <summary>Removes the folders whose worker is gone. Its checkpoints are in the artifact store, as far as they count.</summary>
    public void RemoveOrphans()
    {
        if (!Directory.Exists(paths.Attempts))
        {
            return;
        }

        var names = Directory.EnumerateDirectories(paths.Attempts)
            .Concat(Directory.EnumerateFiles(paths.Attempts, "*.lock").Select(path => path[..^".lock".Length]))
            .Distinct(StringComparer.Ordinal).ToList();
        foreach (var folder in names)
        {
            try
            {
                using var held = LockFile.TryTake(folder + ".lock");
                if (held is null)
                {
                    continue;
                }

                if (Directory.Exists(folder))
                {
                    Directory.Delete(folder, recursive: true);
                    Removed(folder);
                }

                File.Delete(folder + ".lock");
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                WorkFolder.NotRemoved(logger, folder, e);   // a child that is about to end may still write there; the next look finds it again
            }
        }
    }

    [LoggerMessage(80, LogLevel.Information, "Removed {Folder}, which a worker that is gone left behind")]
    private partial void Removed(string folder);
}

/// <summary>The work folder of one attempt, from its making to its removal.</summary>
internal sealed partial class WorkFolder(string path, ILogger logger) : IDisposable
{
    private FileStream? _lock;

    public string Path { get; } = path;

    /// <exception cref="IOException">The disk is full, or the folder belongs to somebody who lives.</exception>
    public void Create()
    {
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(Path)!);
        _lock ??= LockFile.TryTake(Path + ".lock") ?? throw new IOException($"'{Path}' belongs to another worker.");
        Directory.CreateDirectory(Path);
    }

    public void Dispose()
    {
        if (_lock is null)
        {
            return;
        }

        try
        {
            if (Directory.Exists(Path))
            {
                Directory.Delete(Path, recursive: true);
            }

            File.Delete(Path + ".lock");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            NotRemoved(logger, Path, e);
        }
        finally
        {
            _lock.Dispose();
        }
    }

    [LoggerMessage(81, LogLevel.Warning, "{Folder} could not be removed; the next attempt tries again")]
    internal static partial void NotRemoved(ILogger logger, string folder, Exception exception);
}
