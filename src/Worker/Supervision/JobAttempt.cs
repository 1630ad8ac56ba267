using System.Security.Cryptography;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure.Data;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Training;

namespace TrainingService.Worker.Supervision;

/// <summary>Leads one attempt of one job from claim to end. Every path ends in a legal state of the job, or in a lost lease.</summary>
internal sealed partial class JobAttempt(
    JobInputs inputs, ChildRun child, Settlement settlement, IArtifactStore store, WorkFolders folders, CacheEntries cache, WorkerPaths paths,
    IOptions<WorkerOptions> options, TimeProvider clock, ILogger<JobAttempt> logger)
{
    private static readonly TimeSpan EvidencePatience = TimeSpan.FromSeconds(30);

    private readonly WorkerOptions _options = options.Value;

    /// <param name="stopping">Fires when the worker shuts down.</param>
    public async Task RunAsync(JobLease lease, CancellationToken stopping)
    {
        folders.RemoveOrphans();
        using var work = folders.For(lease.JobId, lease.Attempt);
        var reports = new ReportBuffer(lease.Now);
        using var stop = new StopRequest();
        using var shutdown = stopping.Register(() => stop.Set(StopReason.Shutdown));
        using var watchEnd = new CancellationTokenSource();
        var watch = new LeaseWatch(lease, reports, stop, _options, clock, logger).RunAsync(watchEnd.Token);
        try
        {
            Started(lease.JobId, lease.Attempt);
            var fenced = new FencedStore(store, lease, TimeSpan.FromSeconds(_options.LeaseSeconds), reports.Touch, clock, logger);
            var outcome = await TryAsync(lease, fenced, work, reports, stop);
            var evidence = await EvidenceAsync(lease, fenced, work.Path, stop, outcome);
            await watchEnd.CancelAsync();
            await watch;
            await settlement.SettleAsync(lease, stop.Reason, outcome, evidence);
        }
        catch (LeaseLostException)
        {
            LeaseLost(lease.JobId, lease.Attempt);
        }
        finally
        {
            await watchEnd.CancelAsync();
            await watch;
        }

        await cache.MakeRoomAsync(all: false, CancellationToken.None);
    }

    private async Task<Outcome> TryAsync(JobLease lease, FencedStore fenced, WorkFolder work, ReportBuffer reports, StopRequest stop)
    {
        using var use = new CacheUse(cache);
        try
        {
            work.Create();
            reports.Add(new PhaseReport("downloading"));
            PreparedJob? prepared = null;
            await KeepTrying(
                async () => prepared = await inputs.PrepareAsync(lease, work.Path, reports, use, stop.Token), Patience.MayPass, stop.Token);
            reports.Pace = prepared!.Pace;
            return await TrainAsync(lease, fenced, prepared, work.Path, reports, stop);
        }
        catch (OperationCanceledException) when (stop.Reason != StopReason.None)
        {
            return new Outcome.Stopped(null);
        }
        catch (TrainingException e)
        {
            return Broken(AttemptEnd.CodeOf(e.Code), e.Message, e.Param);
        }
        catch (IOException e) when (DiskFull.Is(e))
        {
            FilesFailed(lease.JobId, e);
            use.Dispose();
            await cache.MakeRoomAsync(all: true, CancellationToken.None);
            return Broken(FailureCodes.Storage, DiskFull.Sentence(paths.Root));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArtifactStoreException or DamagedFileException)
        {
            FilesFailed(lease.JobId, e);
            return Broken(FailureCodes.Storage, "The worker could not read or write the job's files; try again, or ask the operator to look at the worker's log.");
        }
        catch (Exception e) when (e is not LeaseLostException)   // the edge of an attempt: whatever it met, the job gets an answer
        {
            Defect(lease.JobId, lease.Attempt, e);
            return Broken(
                DatabaseFailure.MayPass(e) ? FailureCodes.Storage : FailureCodes.Internal,
                "The worker met a failure of its own; ask the operator to look at the worker's log.");
        }
    }

    private async Task<Outcome> TrainAsync(
        JobLease lease, FencedStore fenced, PreparedJob prepared, string work, ReportBuffer reports, StopRequest stop)
    {
        // A checkpoint is worth the whole grace of a pause or a shutdown, and nothing to a job that ends.
        using var saving = new StopGrace(
            stop, reason => reason >= StopReason.Cancelled ? TimeSpan.Zero : ChildRun.GraceOf(reason, _options), clock);
        var checkpoints = new CheckpointUploads(
            lease, work, fenced, reports, prepared.ResumedFrom, prepared.Spec.Checkpoints.Keep, clock, logger);
        var storing = StoreAsync(checkpoints, stop, saving.Token);
        ChildEnd end;
        try
        {
            end = await child.RunAsync(prepared, work, reports, checkpoints, stop);
        }
        finally
        {
            checkpoints.Complete(insist: stop.Reason != StopReason.None);
            await storing;
        }

        if (end.Failure is { } failure)
        {
            return new Outcome.Broken(failure);
        }

        if (end.Done is null)
        {
            return new Outcome.Stopped(WarningOf(end, checkpoints.StoredStep));
        }

        // A complete run is worth waiting for, but not longer than its owner or the shutdown allows.
        reports.Add(new PhaseReport("uploading"));
        using var uploading = new StopGrace(
            stop,
            reason => reason switch
            {
                StopReason.Deadline => null,
                StopReason.Shutdown => ChildRun.GraceOf(reason, _options),
                _ => TimeSpan.Zero,
            },
            clock);
        IReadOnlyList<Artifact> artifacts = [];
        Domain.Files.DataFile? results = null;
        await KeepTrying(async () => artifacts = await ArtifactUploads.UploadRunAsync(lease, fenced, prepared.Spec, work, uploading.Token), UploadMayPass, uploading.Token);
        await KeepTrying(async () => results = await ArtifactUploads.UploadResultsAsync(lease, fenced, work, uploading.Token), UploadMayPass, uploading.Token);
        return new Outcome.Complete(NameOf(prepared), artifacts, results, RunCosts.Of(reports.Estimate, end.Done, artifacts));
    }

    /// <summary>What is uploaded is on the disk already, so a full one is the store's, and worth waiting for.</summary>
    private static bool UploadMayPass(Exception failure) => Patience.MayPass(failure) || DiskFull.Is(failure);

    private static async Task StoreAsync(CheckpointUploads checkpoints, StopRequest stop, CancellationToken cancellationToken)
    {
        try
        {
            await checkpoints.RunAsync(cancellationToken);
        }
        catch (LeaseLostException)
        {
            stop.Set(StopReason.LeaseLost);
        }
    }

    private static string? WarningOf(ChildEnd end, int stored)
    {
        var place = stored == 0 ? "the start" : FormattableString.Invariant($"step {stored}");
        return end.LastStep <= stored
            ? null
            : FormattableString.Invariant($"The checkpoint of step {end.LastStep} could not be stored in time; the job will go on from {place}, with the same result.");
    }

    /// <summary>The log of an attempt without a result helps, but its absence must not keep the job from its end.</summary>
    private async Task<IReadOnlyList<Artifact>> EvidenceAsync(
        JobLease lease, FencedStore fenced, string work, StopRequest stop, Outcome outcome)
    {
        var wanted = outcome is Outcome.Broken || (outcome is Outcome.Stopped && stop.Reason is StopReason.Cancelled or StopReason.Deadline);
        if (!wanted || stop.Reason == StopReason.LeaseLost)
        {
            return [];
        }

        var patience = stop.Reason == StopReason.Cancelled ? TimeSpan.FromSeconds(_options.CancelGraceSeconds) : EvidencePatience;
        using var limit = new CancellationTokenSource(patience, clock);
        try
        {
            return await ArtifactUploads.UploadEvidenceAsync(lease, fenced, work, limit.Token);
        }
        catch (Exception e) when (e is IOException or OperationCanceledException || Patience.MayPass(e))
        {
            FilesFailed(lease.JobId, e);
            return [];
        }
    }

    private Task KeepTrying(Func<Task> work, Func<Exception, bool> mayPass, CancellationToken cancellationToken) => Patience.KeepTryingAsync(
        work, mayPass, TimeSpan.FromSeconds(_options.StorePatienceSeconds), clock, logger, cancellationToken);

    private static Outcome.Broken Broken(string code, string message, string? param = null) =>
        new(new JobFailure(code, message, param, null));

    private static string NameOf(PreparedJob job) =>
        $"ft:{job.ModelName}:{job.ProjectName}:{job.Suffix}:{RandomNumberGenerator.GetString("abcdefghijklmnopqrstuvwxyz0123456789", 8)}";

    [LoggerMessage(1, LogLevel.Information, "Job {JobId}: attempt {Attempt} starts")]
    private partial void Started(Guid jobId, int attempt);

    [LoggerMessage(2, LogLevel.Warning, "Job {JobId}: the lease of attempt {Attempt} is lost; stopped without a write")]
    private partial void LeaseLost(Guid jobId, int attempt);

    [LoggerMessage(3, LogLevel.Warning, "Job {JobId}: files could not be read or written")]
    private partial void FilesFailed(Guid jobId, Exception exception);

    [LoggerMessage(4, LogLevel.Error, "Job {JobId}: attempt {Attempt} ended by a defect of the worker")]
    private partial void Defect(Guid jobId, int attempt, Exception exception);
}
