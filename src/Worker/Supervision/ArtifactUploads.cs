using System.Text.Json;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Training;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Worker.Supervision;

/// <summary>Carries what an attempt leaves behind to the artifact store.</summary>
internal sealed class ArtifactUploads(IArtifactStore store, TimeProvider clock)
{
    public const string LogPath = "logs/train.log";

    /// <summary>Uploads every file of the finished run, then its manifest: readers trust nothing that no manifest names.</summary>
    /// <exception cref="IOException">A file differs from what the training process wrote.</exception>
    public async Task<IReadOnlyList<Artifact>> UploadRunAsync(
        JobLease lease, TrainingSpec submitted, string work, CancellationToken cancellationToken)
    {
        // The training process saw local paths; the artifact says what was asked for.
        await File.WriteAllTextAsync(Path.Combine(work, "spec.json"), SpecJson.Serialize(submitted), cancellationToken);
        var written = JsonSerializer.Deserialize<Manifest>(
            await File.ReadAllBytesAsync(Path.Combine(work, Manifest.FileName), cancellationToken), SpecJson.Options)!;
        var stored = new List<ManifestFile>();

        // The log grows until the process has ended, after it wrote its manifest; it is added below.
        foreach (var file in written.Files.Where(file => file.Path != LogPath))
        {
            var saved = await PutAsync(lease, work, file.Path, file.ContentType, cancellationToken);
            if (file.Path != "spec.json" && saved.Sha256 != file.Sha256)
            {
                throw new IOException($"{file.Path} changed after the training process had finished.");
            }

            stored.Add(file with { Bytes = saved.Bytes, Sha256 = saved.Sha256 });
        }

        if (await PutLogAsync(lease, work, cancellationToken) is { } log)
        {
            stored.Add(log);
        }

        var manifest = JsonSerializer.SerializeToUtf8Bytes(new Manifest(stored), SpecJson.Options);
        using var content = new MemoryStream(manifest);
        var last = await store.PutAsync(lease.StoragePrefix + Manifest.FileName, content, "application/json", cancellationToken);
        stored.Add(new ManifestFile(Manifest.FileName, last.Bytes, last.Sha256, "application/json"));
        return [.. stored.Select(file => ArtifactOf(lease, file))];
    }

    /// <summary>Uploads the log of an attempt that did not succeed.</summary>
    public async Task<IReadOnlyList<Artifact>> UploadLogAsync(JobLease lease, string work, CancellationToken cancellationToken) =>
        await PutLogAsync(lease, work, cancellationToken) is { } log ? [ArtifactOf(lease, log)] : [];

    /// <summary>Stores the run's curve as a file of its own, which outlives its artifacts; null when there is none.</summary>
    public async Task<DataFile?> UploadResultsAsync(JobLease lease, string work, CancellationToken cancellationToken)
    {
        var path = Path.Combine(work, "metrics", "results.csv");
        if (!File.Exists(path))
        {
            return null;
        }

        var id = Guid.CreateVersion7(clock.GetUtcNow());
        await using var content = File.OpenRead(path);
        var stored = await store.PutAsync($"projects/{lease.ProjectId:N}/files/{id:N}", content, "text/csv", cancellationToken);
        return new DataFile
        {
            Id = id,
            ProjectId = lease.ProjectId,
            FileName = "step_metrics.csv",
            Purpose = "fine-tune-results",
            Bytes = stored.Bytes,
            Sha256 = stored.Sha256,
            StorageKey = stored.Key,
            CreatedAt = clock.GetUtcNow(),
        };
    }

    private static Artifact ArtifactOf(JobLease lease, ManifestFile file) => new()
    {
        Id = Guid.CreateVersion7(),
        JobId = lease.JobId,
        Attempt = lease.Attempt,
        Path = file.Path,
        Bytes = file.Bytes,
        Sha256 = file.Sha256,
        ContentType = file.ContentType,
        StorageKey = lease.StoragePrefix + file.Path,
    };

    private async Task<ManifestFile?> PutLogAsync(JobLease lease, string work, CancellationToken cancellationToken)
    {
        if (!File.Exists(Path.Combine(work, LogPath)))
        {
            return null;
        }

        var saved = await PutAsync(lease, work, LogPath, "text/plain", cancellationToken);
        return new ManifestFile(LogPath, saved.Bytes, saved.Sha256, "text/plain");
    }

    private async Task<StoredObject> PutAsync(
        JobLease lease, string work, string path, string contentType, CancellationToken cancellationToken)
    {
        await using var content = File.OpenRead(Path.Combine(work, path));
        return await store.PutAsync(lease.StoragePrefix + path, content, contentType, cancellationToken);
    }
}
