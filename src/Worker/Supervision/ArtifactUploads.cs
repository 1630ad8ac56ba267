using System.Text.Json;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Training;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Worker.Supervision;

/// <summary>Carries what an attempt leaves behind to the artifact store.</summary>
internal static class ArtifactUploads
{
    public const string LogPath = "logs/train.log";

    private const string DataReportPath = "data/report.json";

    /// <summary>Uploads every file of the finished run, then its manifest: readers trust nothing that no manifest names.</summary>
    /// <exception cref="IOException">A file differs from what the training process wrote.</exception>
    public static async Task<IReadOnlyList<Artifact>> UploadRunAsync(
        JobLease lease, FencedStore store, TrainingSpec submitted, string work, CancellationToken cancellationToken)
    {
        // The training process saw local paths; the artifact says what was asked for.
        await File.WriteAllTextAsync(Path.Combine(work, "spec.json"), SpecJson.Serialize(submitted), cancellationToken);
        var written = JsonSerializer.Deserialize<Manifest>(
            await File.ReadAllBytesAsync(Path.Combine(work, Manifest.FileName), cancellationToken), SpecJson.Options)!;
        var stored = new List<ManifestFile>();

        // The log grows until the process has ended, after it wrote its manifest; it is added below.
        foreach (var file in written.Files.Where(file => file.Path != LogPath))
        {
            var saved = await PutAsync(lease, store, work, file.Path, file.ContentType, cancellationToken);
            if (file.Path != "spec.json" && saved.Sha256 != file.Sha256)
            {
                throw new IOException($"{file.Path} changed after the training process had finished.");
            }

            stored.Add(file with { Bytes = saved.Bytes, Sha256 = saved.Sha256 });
        }

        if (await PutIfThereAsync(lease, store, work, LogPath, "text/plain", cancellationToken) is { } log)
        {
            stored.Add(log);
        }

        var manifest = JsonSerializer.SerializeToUtf8Bytes(new Manifest(stored), SpecJson.Options);
        using var content = new MemoryStream(manifest);
        var last = await store.PutAsync(lease.StoragePrefix + Manifest.FileName, content, "application/json", cancellationToken);
        stored.Add(new ManifestFile(Manifest.FileName, last.Bytes, last.Sha256, "application/json"));
        return [.. stored.Select(file => ArtifactOf(lease, file))];
    }

    /// <summary>Uploads what tells why an attempt has no result: its log, and what was found in the data.</summary>
    public static async Task<IReadOnlyList<Artifact>> UploadEvidenceAsync(
        JobLease lease, FencedStore store, string work, CancellationToken cancellationToken)
    {
        ManifestFile?[] files =
        [
            await PutIfThereAsync(lease, store, work, LogPath, "text/plain", cancellationToken),
            await PutIfThereAsync(lease, store, work, DataReportPath, "application/json", cancellationToken),
        ];
        return [.. files.OfType<ManifestFile>().Select(file => ArtifactOf(lease, file))];
    }

    /// <summary>Stores the run's curve as a file of its own, which outlives its artifacts; null when there is none.</summary>
    public static async Task<DataFile?> UploadResultsAsync(
        JobLease lease, FencedStore store, string work, CancellationToken cancellationToken)
    {
        var path = Path.Combine(work, "metrics", "results.csv");
        if (!File.Exists(path))
        {
            return null;
        }

        var id = Guid.CreateVersion7(lease.Now());
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
            CreatedAt = lease.Now(),
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

    private static async Task<ManifestFile?> PutIfThereAsync(
        JobLease lease, FencedStore store, string work, string path, string contentType, CancellationToken cancellationToken)
    {
        if (!File.Exists(Path.Combine(work, path)))
        {
            return null;
        }

        var saved = await PutAsync(lease, store, work, path, contentType, cancellationToken);
        return new ManifestFile(path, saved.Bytes, saved.Sha256, contentType);
    }

    private static async Task<StoredObject> PutAsync(
        JobLease lease, FencedStore store, string work, string path, string contentType, CancellationToken cancellationToken)
    {
        await using var content = File.OpenRead(Path.Combine(work, path));
        return await store.PutAsync(lease.StoragePrefix + path, content, contentType, cancellationToken);
    }
}
