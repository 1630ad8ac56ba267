using System.Security.Cryptography;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Training;

namespace TrainingService.Worker.Supervision;

/// <summary>Leads one attempt of one job from claim to end. Every path ends in a legal state of the job, or in a lost lease.</summary>
internal sealed partial class JobAttempt(
    JobInputs inputs, ArtifactUploads uploads, IArtifactStore store, WorkerPaths paths, IOptions<WorkerOptions> options,
    TimeProvider clock, ILogger<JobAttempt> logger)
{
    /// <param name="stopping">Fires when the worker shuts down.</param>
    public async Task RunAsync(JobLease lease, CancellationToken stopping)
    {
        var work = paths.Attempt(lease.JobId, lease.Attempt);
        var reports = new ReportBuffer(clock);
        using var stop = new StopRequest();
        using var shutdown = stopping.Register(() => stop.Set(StopReason.Shutdown));
        using var watchEnd = new CancellationTokenSource();
        var watch = new LeaseWatch(lease, reports, stop, options.Value, clock, logger).RunAsync(watchEnd.Token);
        try
        {
            Started(lease.JobId, lease.Attempt);
            var outcome = await TryAsync(lease, work, reports, stop);
            await watchEnd.CancelAsync();
            await watch;
            await SettleAsync(lease, work, stop.Reason, outcome);
        }
        catch (LeaseLostException)
        {
            LeaseLost(lease.JobId, lease.Attempt);
        }
        finally
        {
            await watchEnd.CancelAsync();
            await watch;
            if (Directory.Exists(work))
            {
                Directory.Delete(work, recursive: true);
            }
        }
    }

    /// <summary>A run that is complete and stored, or why there is none.</summary>
    private sealed record Outcome(string? FineTunedModel, IReadOnlyList<Artifact> Artifacts, Domain.Files.DataFile? Results, JobFailure? Failure);

    private static Outcome Failed(string code, string message, string? param = null, string? log = null) =>
        new(null, [], null, new JobFailure(code, message, param, log));

    /// <summary>Null: stopped before it could end.</summary>
    private async Task<Outcome?> TryAsync(JobLease lease, string work, ReportBuffer reports, StopRequest stop)
    {
        try
        {
            Directory.CreateDirectory(work);
            reports.Add(new PhaseReport("downloading"));
            var prepared = await inputs.PrepareAsync(lease, work, stop.Token);
            var (failure, done) = await TrainAsync(lease, prepared, work, reports, stop);
            if (failure is not null)
            {
                return new Outcome(null, [], null, failure);
            }

            if (stop.Reason is StopReason.LeaseLost or StopReason.Cancelled || done is null)
            {
                return null;
            }

            reports.Add(new PhaseReport("uploading"));
            var artifacts = await uploads.UploadRunAsync(lease, prepared.Spec, work, CancellationToken.None);
            var results = await uploads.UploadResultsAsync(lease, work, CancellationToken.None);
            return new Outcome(NameOf(prepared), artifacts, results, null);
        }
        catch (OperationCanceledException) when (stop.Reason != StopReason.None)
        {
            return null;
        }
        catch (TrainingException e)
        {
            return Failed(AttemptEnd.CodeOf(e.Code), e.Message, e.Param);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArtifactStoreException)
        {
            StorageFailed(lease.JobId, e);
            return Failed(FailureCodes.Storage, "The worker could not read or write the job's files; try again, or ask the operator to look at the worker's log.");
        }
    }

    /// <returns>The failure, if any; the second member is null when the process was stopped before its end.</returns>
    private async Task<(JobFailure? Failure, DoneReport? Done)> TrainAsync(
        JobLease lease, PreparedJob prepared, string work, ReportBuffer reports, StopRequest stop)
    {
        var specFile = Path.Combine(work, ".spec.json");
        await File.WriteAllTextAsync(specFile, SpecJson.Serialize(prepared.Local), stop.Token);
        using var log = new LogTail(Path.Combine(work, ArtifactUploads.LogPath));
        var checkpoints = new CheckpointUploads(lease, work, store, clock, logger);
        var uploading = checkpoints.RunAsync(CancellationToken.None);
        DoneReport? done = null;
        FailedReport? failed = null;
        int exitCode;
        bool stopped;
        using (var process = TrainingProcess.Start(paths.Executable, paths.Preload, specFile, work, prepared.ModelName))
        {
            using var ended = new CancellationTokenSource();
            var obeying = ObeyAsync(process, stop, ended.Token);
            exitCode = await process.ReadAsync(
                report =>
                {
                    reports.Add(report);
                    switch (report)
                    {
                        case CheckpointReport checkpoint:
                            checkpoints.Add(checkpoint);
                            break;
                        case DoneReport last:
                            done = last;
                            break;
                        case FailedReport last:
                            failed = last;
                            break;
                        default:
                            break;
                    }
                },
                log.Add);
            await ended.CancelAsync();
            await obeying;
            stopped = done is null && failed is null && stop.Reason != StopReason.None;
        }

        checkpoints.Complete();
        await uploading;
        return stopped ? (null, null) : (AttemptEnd.FailureOf(exitCode, done, failed, log.Read()), done);
    }

    /// <summary>Passes a stop request on to the training process, and kills it when it does not obey.</summary>
    private async Task ObeyAsync(TrainingProcess process, StopRequest stop, CancellationToken ended)
    {
        try
        {
            using (var either = CancellationTokenSource.CreateLinkedTokenSource(stop.Token, ended))
            {
                await FiredAsync(either.Token);
            }

            if (ended.IsCancellationRequested)
            {
                return;
            }

            var (command, grace) = stop.Reason switch
            {
                StopReason.Shutdown => ("checkpoint-and-stop", options.Value.ShutdownGraceSeconds),
                StopReason.Cancelled or StopReason.Deadline => ("cancel", options.Value.CancelGraceSeconds),
                StopReason.LeaseLost => ("cancel", 0),
                StopReason.None => throw new InvalidOperationException("A stop request has a reason."),
            };
            await process.SendAsync(command);
            await Task.Delay(TimeSpan.FromSeconds(grace), clock, ended);
            process.Kill();
        }
        catch (OperationCanceledException) when (ended.IsCancellationRequested)
        {
            // It obeyed in time.
        }
    }

    private static async Task FiredAsync(CancellationToken token)
    {
        var fired = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var registration = token.Register(fired.SetResult);
        await fired.Task;
    }

    private async Task SettleAsync(JobLease lease, string work, StopReason reason, Outcome? outcome)
    {
        if (reason == StopReason.LeaseLost)
        {
            throw new LeaseLostException(lease.JobId, lease.Token);
        }

        if (outcome?.FineTunedModel is { } model)
        {
            await Persist(() => lease.SucceedAsync(model, outcome.Artifacts, outcome.Results, CancellationToken.None));
            Succeeded(lease.JobId, model);
            return;
        }

        var log = await LogAsync(lease, work);
        switch (outcome, reason)
        {
            case (_, StopReason.Cancelled):
                await Persist(() => lease.ConfirmCancelledAsync(log, CancellationToken.None));
                Cancelled(lease.JobId);
                break;
            case (null, StopReason.Shutdown):
                await Persist(() => lease.RequeueAsync("its worker shut down", TimeSpan.Zero, CancellationToken.None));
                GivenBack(lease.JobId);
                break;
            case (_, StopReason.Deadline):
                var seconds = options.Value.MaxRunSeconds;
                await FailAsync(lease, log, new JobFailure(
                    FailureCodes.Timeout,
                    FormattableString.Invariant($"The job ran for longer than the {seconds} s that this service allows; train fewer steps, or ask the operator for more."),
                    "schedule",
                    null));
                break;
            case ({ Failure: { } failure }, _):
                await FailOrRetryAsync(lease, log, failure);
                break;
            default:
                throw new InvalidOperationException($"Job {lease.JobId} stopped without a reason.");
        }
    }

    private async Task FailOrRetryAsync(JobLease lease, IReadOnlyList<Artifact> log, JobFailure failure)
    {
        if (failure.Responsibility == Responsibility.Platform && lease.Attempt < options.Value.MaxAttempts)
        {
            var delay = TimeSpan.FromSeconds(Math.Min(options.Value.RetrySeconds * Math.Pow(2, lease.Attempt - 1), 600));
            await Persist(() => lease.RequeueAsync($"{failure.Code}: {failure.Message}", delay, CancellationToken.None));
            Retried(lease.JobId, failure.Code);
        }
        else
        {
            await FailAsync(lease, log, failure);
        }
    }

    private async Task FailAsync(JobLease lease, IReadOnlyList<Artifact> log, JobFailure failure)
    {
        await Persist(() => lease.FailAsync(failure, log, CancellationToken.None));
        FailedFor(lease.JobId, failure.Code, failure.Message);
    }

    /// <summary>The log helps, but its absence must not keep the job from its end.</summary>
    private async Task<IReadOnlyList<Artifact>> LogAsync(JobLease lease, string work)
    {
        try
        {
            return await uploads.UploadLogAsync(lease, work, CancellationToken.None);
        }
        catch (Exception e) when (e is IOException or ArtifactStoreException)
        {
            StorageFailed(lease.JobId, e);
            return [];
        }
    }

    private Task Persist(Func<Task> write) => Database.PersistAsync(write, clock, logger);

    private static string NameOf(PreparedJob job) =>
        $"ft:{job.ModelName}:{job.ProjectName}:{job.Suffix}:{RandomNumberGenerator.GetString("abcdefghijklmnopqrstuvwxyz0123456789", 8)}";

    [LoggerMessage(1, LogLevel.Information, "Job {JobId}: attempt {Attempt} starts")]
    private partial void Started(Guid jobId, int attempt);

    [LoggerMessage(2, LogLevel.Information, "Job {JobId} succeeded as {Model}")]
    private partial void Succeeded(Guid jobId, string model);

    [LoggerMessage(3, LogLevel.Information, "Job {JobId} was cancelled")]
    private partial void Cancelled(Guid jobId);

    [LoggerMessage(4, LogLevel.Information, "Job {JobId} goes back to the queue: this worker shuts down")]
    private partial void GivenBack(Guid jobId);

    [LoggerMessage(5, LogLevel.Warning, "Job {JobId} failed with {Code} and gets another attempt")]
    private partial void Retried(Guid jobId, string code);

    [LoggerMessage(6, LogLevel.Information, "Job {JobId} failed with {Code}: {Reason}")]
    private partial void FailedFor(Guid jobId, string code, string reason);

    [LoggerMessage(7, LogLevel.Warning, "Job {JobId}: the lease of attempt {Attempt} is lost; stopped without a write")]
    private partial void LeaseLost(Guid jobId, int attempt);

    [LoggerMessage(8, LogLevel.Warning, "Job {JobId}: files could not be read or written")]
    private partial void StorageFailed(Guid jobId, Exception exception);
}
