using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.Worker.Supervision;

/// <summary>Turns the outcome of an attempt into the job's next state. Its owner's last word counts: it is read with the row.</summary>
internal sealed partial class Settlement(IJobQueue queue, IOptions<WorkerOptions> options, TimeProvider clock, ILogger<Settlement> logger)
{
    /// <param name="evidence">What an attempt without a result leaves behind.</param>
    /// <exception cref="LeaseLostException">The job is another worker's now, or has ended; nothing is written.</exception>
    public async Task SettleAsync(JobLease lease, StopReason reason, Outcome outcome, IReadOnlyList<Artifact> evidence)
    {
        switch (outcome, reason)
        {
            case (_, StopReason.LeaseLost):
                throw new LeaseLostException(lease.JobId, lease.Token);
            case (Outcome.Complete complete, _):
                await Persist(() => lease.SucceedAsync(complete.Model, complete.Artifacts, complete.Results, complete.CostJson, CancellationToken.None));
                Succeeded(lease.JobId, complete.Model);
                break;
            case (_, StopReason.Cancelled):
                await Persist(() => lease.ConfirmCancelledAsync(evidence, CancellationToken.None));
                Cancelled(lease.JobId);
                break;
            case (Outcome.Broken broken, _):
                await FailOrRetryAsync(lease, broken.Failure, evidence);
                break;
            case (Outcome.Stopped stopped, StopReason.Paused):
                await StopAsync(lease, () => lease.ConfirmPausedAsync(stopped.Warning, CancellationToken.None));
                break;
            case (Outcome.Stopped stopped, StopReason.Shutdown):
                await StopAsync(lease, () => lease.GiveBackAsync("its worker shut down", stopped.Warning, CancellationToken.None));
                break;
            case (Outcome.Stopped, StopReason.Deadline):
                await FailAsync(lease, RunLimit.Of(lease, options.Value)!.ToFailure(), evidence);
                break;
            default:
                throw new InvalidOperationException($"Job {lease.JobId} stopped without a reason.");
        }
    }

    private async Task FailOrRetryAsync(JobLease lease, JobFailure failure, IReadOnlyList<Artifact> evidence)
    {
        if (failure.Responsibility == Responsibility.Platform && lease.FailureCount + 1 < options.Value.MaxAttempts)
        {
            var delay = TimeSpan.FromSeconds(Math.Min(options.Value.RetrySeconds * Math.Pow(2, Math.Min(lease.FailureCount, 20)), 600));
            await Persist(() => lease.RetryAsync($"{failure.Code}: {failure.Message}", delay, evidence, CancellationToken.None));
            Retried(lease.JobId, failure.Code, failure.Message);
        }
        else
        {
            await FailAsync(lease, failure, evidence);
        }
    }

    private async Task FailAsync(JobLease lease, JobFailure failure, IReadOnlyList<Artifact> evidence)
    {
        await Persist(() => lease.FailAsync(failure, evidence, CancellationToken.None));
        FailedFor(lease.JobId, failure.Code, failure.Message);
    }

    private async Task StopAsync(JobLease lease, Func<Task<JobStatus>> stop)
    {
        var status = JobStatus.Running;
        await Persist(async () => status = await stop());
        Stopped(lease.JobId, status);
        if (status == JobStatus.Queued)
        {
            queue.Wake(lease.JobId);   // another worker may take it at once
        }
    }

    private Task Persist(Func<Task> write) => Patience.PersistAsync(write, clock, logger, CancellationToken.None);

    [LoggerMessage(50, LogLevel.Information, "Job {JobId} succeeded as {Model}")]
    private partial void Succeeded(Guid jobId, string model);

    [LoggerMessage(51, LogLevel.Information, "Job {JobId} was cancelled")]
    private partial void Cancelled(Guid jobId);

    [LoggerMessage(52, LogLevel.Information, "Job {JobId} was stopped as asked and is {Status} now")]
    private partial void Stopped(Guid jobId, JobStatus status);

    [LoggerMessage(53, LogLevel.Warning, "Job {JobId} failed with {Code} and gets another attempt: {Reason}")]
    private partial void Retried(Guid jobId, string code, string reason);

    [LoggerMessage(54, LogLevel.Information, "Job {JobId} failed with {Code}: {Reason}")]
    private partial void FailedFor(Guid jobId, string code, string reason);
}
