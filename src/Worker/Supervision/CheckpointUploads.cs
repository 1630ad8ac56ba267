using System.Globalization;
using System.Text.Json;
using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Training;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Worker.Supervision;

/// <summary>Carries checkpoints to the artifact store one after the other, while the training goes on.</summary>
internal sealed partial class CheckpointUploads(
    JobLease lease, string work, IArtifactStore store, TimeProvider clock, ILogger logger)
{
    /// <summary>What was measured before a checkpoint is kept beside it, so that an attempt elsewhere goes on with the whole curve.</summary>
    public static readonly IReadOnlyList<string> MetricFiles = ["metrics.jsonl", "results.csv", "data_order.csv"];

    private readonly Channel<CheckpointReport> _queue = Channel.CreateUnbounded<CheckpointReport>();

    public static string LocalFolder(string work, int step) =>
        Path.Combine(work, "checkpoints", string.Create(CultureInfo.InvariantCulture, $"step-{step:D6}"));

    public static string MetricKey(string checkpointPrefix, string name) => $"{checkpointPrefix}before/{name}";

    public void Add(CheckpointReport checkpoint) => _queue.Writer.TryWrite(checkpoint);

    /// <summary>No more will come: <see cref="RunAsync"/> ends after the last one.</summary>
    public void Complete() => _queue.Writer.TryComplete();

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        await foreach (var checkpoint in _queue.Reader.ReadAllAsync(cancellationToken))
        {
            try
            {
                await UploadAsync(checkpoint, cancellationToken);
            }
            catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
            {
                Pruned(lease.JobId, checkpoint.Step);
            }
            catch (Exception e) when (e is IOException or ArtifactStoreException)
            {
                // The run needs no checkpoint to end well; the next one may get through.
                NotStored(lease.JobId, checkpoint.Step, e);
            }
        }
    }

    private async Task UploadAsync(CheckpointReport checkpoint, CancellationToken cancellationToken)
    {
        var folder = Path.Combine(work, checkpoint.Path);
        var prefix = $"{lease.StoragePrefix}{checkpoint.Path.Replace('\\', '/').TrimEnd('/')}/";
        var manifestFile = Path.Combine(folder, Manifest.FileName);
        var manifest = JsonSerializer.Deserialize<Manifest>(await File.ReadAllBytesAsync(manifestFile, cancellationToken), SpecJson.Options)!;
        foreach (var name in MetricFiles)
        {
            // The training process goes on writing to these, and an upload needs a file that stands still.
            var still = Path.Combine(work, $".{name}");
            File.Copy(Path.Combine(work, "metrics", name), still, overwrite: true);
            await PutAsync(MetricKey(prefix, name), still, "text/plain", cancellationToken);
        }

        foreach (var file in manifest.Files)
        {
            var stored = await PutAsync(prefix + file.Path, Path.Combine(folder, file.Path), file.ContentType, cancellationToken);
            if (stored.Sha256 != file.Sha256)
            {
                throw new IOException($"{file.Path} of the checkpoint of step {checkpoint.Step} changed while it was stored.");
            }
        }

        await PutAsync(prefix + Manifest.FileName, manifestFile, "application/json", cancellationToken);
        var row = new JobCheckpoint
        {
            Id = Guid.CreateVersion7(clock.GetUtcNow()),
            JobId = lease.JobId,
            Attempt = lease.Attempt,
            Step = checkpoint.Step,
            Best = checkpoint.Best,
            MetricsJson = JsonSerializer.Serialize(checkpoint.Metrics),
            StoragePrefix = prefix,
            CreatedAt = clock.GetUtcNow(),
        };
        await Database.PersistAsync(
            () => lease.AddCheckpointAsync(row, $"Checkpoint saved at step {checkpoint.Step}.", cancellationToken), clock, logger);
    }

    private async Task<StoredObject> PutAsync(string key, string path, string contentType, CancellationToken cancellationToken)
    {
        await using var content = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 1 << 16, useAsync: true);
        return await store.PutAsync(key, content, contentType, cancellationToken);
    }

    [LoggerMessage(30, LogLevel.Information, "Job {JobId}: the checkpoint of step {Step} was pruned before it was stored")]
    private partial void Pruned(Guid jobId, int step);

    [LoggerMessage(31, LogLevel.Warning, "Job {JobId}: the checkpoint of step {Step} could not be stored")]
    private partial void NotStored(Guid jobId, int step, Exception exception);
}
