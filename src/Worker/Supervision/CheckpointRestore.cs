using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Logging;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;
using TrainingService.Training;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Worker.Supervision;

/// <summary>Puts the newest checkpoint of earlier attempts where the training process looks for it.</summary>
/// <remarks>
/// One that is missing in the store or differs from its manifest is passed over in favour of the one before: going on from any of
/// them ends in the same bytes. A store that is away is another matter, and comes through.
/// </remarks>
internal sealed partial class CheckpointRestore(ArtifactCache cache, IArtifactStore store, ILogger<CheckpointRestore> logger)
{
    /// <returns>The step of the restored checkpoint; zero when there is none that can be used.</returns>
    public async Task<int> RunAsync(AppDbContext db, Guid job, string work, ReportBuffer reports, CancellationToken cancellationToken)
    {
        var stored = await db.Checkpoints.AsNoTracking().Where(c => c.JobId == job)
            .OrderByDescending(c => c.Step).ThenByDescending(c => c.Attempt).ToListAsync(cancellationToken);
        foreach (var checkpoint in stored)
        {
            var folder = CheckpointUploads.LocalFolder(work, checkpoint.Step);
            try
            {
                await DownloadAsync(checkpoint, folder, reports, cancellationToken);
                return checkpoint.Step;
            }
            catch (Exception e) when (e is DamagedFileException or JsonException)
            {
                Damaged(job, checkpoint.Step, e);
                if (Directory.Exists(folder))
                {
                    Directory.Delete(folder, recursive: true);
                }
            }
        }

        return 0;
    }

    private async Task DownloadAsync(JobCheckpoint checkpoint, string folder, ReportBuffer reports, CancellationToken cancellationToken)
    {
        await using var content = await store.OpenReadAsync(checkpoint.StoragePrefix + Manifest.FileName, null, cancellationToken)
            ?? throw new DamagedFileException($"The checkpoint of step {checkpoint.Step} has no manifest.");
        Directory.CreateDirectory(folder);
        var path = Path.Combine(folder, Manifest.FileName);
        await using (var copy = File.Create(path))
        {
            await content.CopyToAsync(copy, cancellationToken);
        }

        var manifest = JsonSerializer.Deserialize<Manifest>(await File.ReadAllBytesAsync(path, cancellationToken), SpecJson.Options);
        if (manifest is not { Files.Count: > 0 })
        {
            throw new DamagedFileException($"The manifest of the checkpoint of step {checkpoint.Step} names no file.");
        }

        CachedFile[] files = [.. manifest.Files.Select(file => new CachedFile(file.Path, checkpoint.StoragePrefix + file.Path, file.Sha256, file.Bytes))];
        var progress = cache.MeterFor(FormattableString.Invariant($"the checkpoint of step {checkpoint.Step}"), files, reports);
        foreach (var file in files)
        {
            await cache.DownloadAsync(file, folder, progress, cancellationToken);
        }
    }

    [LoggerMessage(60, LogLevel.Warning, "Job {JobId}: the stored checkpoint of step {Step} cannot be used; the one before is tried")]
    private partial void Damaged(Guid jobId, int step, Exception exception);
}
