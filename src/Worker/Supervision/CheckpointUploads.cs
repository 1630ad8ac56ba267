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
/// <remarks>
/// While the store is away the newest checkpoint waits for it and older ones are given up: a run needs only one to go on from, and none
/// to end well.
/// </remarks>
/// <param name="resumedFrom">The step from which this attempt went on.</param>
/// <param name="keep">Newest checkpoints that stay in the store; the best one stays besides.</param>
internal sealed partial class CheckpointUploads(
    JobLease lease, string work, FencedStore store, ReportBuffer reports, int resumedFrom, int keep, TimeProvider clock, ILogger logger)
{
    private readonly Channel<CheckpointReport> _queue = Channel.CreateUnbounded<CheckpointReport>();
    private bool _insist;

    /// <summary>The step from which the job can go on anywhere; zero: from the start.</summary>
    public int StoredStep { get; private set; } = resumedFrom;

    public static string LocalFolder(string work, int step) =>
        Path.Combine(work, "checkpoints", string.Create(CultureInfo.InvariantCulture, $"step-{step:D6}"));

    public void Add(CheckpointReport checkpoint) => _queue.Writer.TryWrite(checkpoint);

    /// <summary>No more will come: <see cref="RunAsync"/> ends after the last one.</summary>
    /// <param name="insist">Whether the last one is worth waiting for a store that is away, until the token fires.</param>
    public void Complete(bool insist)
    {
        _insist = insist;
        _queue.Writer.TryComplete();
    }

    /// <param name="cancellationToken">Gives up what is not stored yet.</param>
    /// <exception cref="LeaseLostException">The job is another worker's now.</exception>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        try
        {
            await foreach (var checkpoint in _queue.Reader.ReadAllAsync(cancellationToken))
            {
                await KeepTryingAsync(checkpoint, cancellationToken);
            }
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            // The last stored checkpoint stands; resuming from any of them ends in the same bytes.
        }
    }

    private async Task KeepTryingAsync(CheckpointReport checkpoint, CancellationToken cancellationToken)
    {
        for (var pause = TimeSpan.FromSeconds(0.5); ; pause = TimeSpan.FromSeconds(Math.Min(pause.TotalSeconds * 2, 15)))
        {
            try
            {
                await UploadAsync(checkpoint, cancellationToken);
                return;
            }
            catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
            {
                Pruned(lease.JobId, checkpoint.Step);
                return;
            }
            catch (Exception e) when (e is IOException || Patience.MayPass(e))
            {
                NotStored(lease.JobId, checkpoint.Step, e);
            }

            if (_queue.Reader.Completion.IsCompleted && !_insist)
            {
                return;
            }

            using var newer = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            await Task.WhenAny(_queue.Reader.WaitToReadAsync(newer.Token).AsTask(), Task.Delay(pause, clock, newer.Token));
            await newer.CancelAsync();
            cancellationToken.ThrowIfCancellationRequested();
            while (_queue.Reader.TryRead(out var next))
            {
                checkpoint = next;
            }
        }
    }

    private async Task UploadAsync(CheckpointReport checkpoint, CancellationToken cancellationToken)
    {
        var folder = Path.Combine(work, checkpoint.Path);
        var prefix = $"{lease.StoragePrefix}{checkpoint.Path.Replace('\\', '/').TrimEnd('/')}/";
        var manifestFile = Path.Combine(folder, Manifest.FileName);
        var manifest = JsonSerializer.Deserialize<Manifest>(await File.ReadAllBytesAsync(manifestFile, cancellationToken), SpecJson.Options)!;
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
            CreatedAt = lease.Now(),
        };

        // An attempt that goes on from here reports no earlier step again: its figures must be in the database before the checkpoint is.
        await reports.StoredAsync(cancellationToken);
        var message = $"Checkpoint saved at step {checkpoint.Step}.";
        await Patience.PersistAsync(() => lease.AddCheckpointAsync(row, message, cancellationToken), clock, logger, cancellationToken);
        StoredStep = checkpoint.Step;
        await PruneAsync(cancellationToken);
    }

    /// <summary>Removes what the training process has pruned on its disk too. The row goes first: what a row names is there.</summary>
    private async Task PruneAsync(CancellationToken cancellationToken)
    {
        try
        {
            foreach (var prefix in await lease.PruneCheckpointsAsync(keep, cancellationToken))
            {
                await store.DeleteFolderAsync(prefix, cancellationToken);
            }
        }
        catch (Exception e) when (Patience.MayPass(e))
        {
            NotPruned(lease.JobId, e);
        }
    }

    private async Task<StoredObject> PutAsync(string key, string path, string contentType, CancellationToken cancellationToken)
    {
        await using var content = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 1 << 16, useAsync: true);
        return await store.PutAsync(key, content, contentType, cancellationToken);
    }

    [LoggerMessage(30, LogLevel.Information, "Job {JobId}: the checkpoint of step {Step} was pruned before it was stored")]
    private partial void Pruned(Guid jobId, int step);

    [LoggerMessage(31, LogLevel.Warning, "Job {JobId}: the checkpoint of step {Step} is not stored yet")]
    private partial void NotStored(Guid jobId, int step, Exception exception);

    [LoggerMessage(32, LogLevel.Warning, "Job {JobId}: an old checkpoint could not be removed; the clean-up of the store will")]
    private partial void NotPruned(Guid jobId, Exception exception);
}
