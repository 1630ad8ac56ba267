using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Jobs;
using TrainingService.EndToEnd.Tests.Infrastructure;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.EndToEnd.Tests.StateMachine;

/// <summary>The steps, done to a real database.</summary>
internal sealed class World(TestService service)
{
    private static readonly Guid[] Projects = [Guid.NewGuid(), Guid.NewGuid(), Guid.NewGuid()];
    private static readonly DateTimeOffset Past = DateTimeOffset.UnixEpoch.AddDays(20_000);
    private int _names;

    public static TimeSpan Lease => TimeSpan.FromMinutes(10);

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public Task<Guid> SubmitAsync(int project, int priority, int order) =>
        service.SubmitAsync(Projects[project % Projects.Length], priority, Past.AddSeconds(order));

    public Task<JobLease?> ClaimAsync(string worker) => service.Jobs.ClaimAsync(worker, Lease, Cancel);

    public Task<int> RecoverAsync() => service.Jobs.RecoverAsync(expiredOnly: true, ModelJob.MaxRecoveries, TimeSpan.Zero, Cancel);

    public async Task ExpireAsync(Guid id)
    {
        await using var db = await service.OpenAsync();
        await db.Jobs.Where(j => j.Id == id && (j.Status == JobStatus.Running || j.Status == JobStatus.Cancelling))
            .ExecuteUpdateAsync(set => set.SetProperty(j => j.LeaseExpiresAt, Past), Cancel);
    }

    public async Task MakeDueAsync(Guid id)
    {
        await using var db = await service.OpenAsync();
        await db.Jobs.Where(j => j.Id == id).ExecuteUpdateAsync(set => set.SetProperty(j => j.NotBefore, (DateTimeOffset?)null), Cancel);
    }

    /// <summary>What the API does for a job's owner.</summary>
    public async Task OwnAsync(StepKind kind, Guid id)
    {
        await using var db = await service.OpenAsync();
        await db.ChangeJobAsync(
            j => j.Id == id,
            (job, now) =>
            {
                switch (kind)
                {
                    case StepKind.Cancel:
                        job.Cancel(now);
                        break;
                    case StepKind.Pause:
                        job.Pause(now);
                        break;
                    case StepKind.Resume:
                        job.Resume(now);
                        break;
                    default:
                        throw new ArgumentOutOfRangeException(nameof(kind), kind, "Not an owner's step.");
                }
            },
            Cancel);
    }

    /// <summary>What a worker does under its lease.</summary>
    /// <param name="messages">The events that a report brings.</param>
    public async Task WorkAsync(StepKind kind, JobLease lease, IReadOnlyList<string> messages)
    {
        switch (kind)
        {
            case StepKind.Renew:
                await lease.RenewAsync(Lease, Cancel);
                break;
            case StepKind.Report:
                var step = Interlocked.Increment(ref _names);
                await lease.ReportAsync(
                    new ProgressBatch
                    {
                        Phase = "training",
                        Events = [.. messages.Select(text => new EventLine(EventLevel.Info, JobEvent.MetricsType, text, null, lease.Now()))],
                        Metrics = [new MetricLine(step % 5, "train", "{\"train/loss\": 1}", lease.Now())],
                    },
                    Cancel);
                break;
            case StepKind.Checkpoint:
                await lease.AddCheckpointAsync(
                    new JobCheckpoint
                    {
                        Id = Guid.NewGuid(),
                        JobId = lease.JobId,
                        Attempt = lease.Attempt,
                        Step = Interlocked.Increment(ref _names),
                        Best = false,
                        MetricsJson = "{}",
                        StoragePrefix = lease.StoragePrefix,
                        CreatedAt = lease.Now(),
                    },
                    "saved",
                    Cancel);
                break;
            case StepKind.Succeed:
                await lease.SucceedAsync($"ft:{Guid.NewGuid():N}", [], null, null, Cancel);
                break;
            case StepKind.Fail:
                await lease.FailAsync(new JobFailure(FailureCodes.Internal, "failed", null, null), [], Cancel);
                break;
            case StepKind.ConfirmCancelled:
                await lease.ConfirmCancelledAsync([], Cancel);
                break;
            case StepKind.ConfirmPaused:
                await lease.ConfirmPausedAsync(null, Cancel);
                break;
            case StepKind.GiveBack:
                await lease.GiveBackAsync("its worker shut down", null, Cancel);
                break;
            case StepKind.Retry:
                await lease.RetryAsync("storage", TimeSpan.Zero, [], Cancel);
                break;
            case StepKind.RetryLater:
                await lease.RetryAsync("storage", TimeSpan.FromHours(1), [], Cancel);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(kind), kind, "Not a worker's step.");
        }
    }

    public async Task ClearAsync()
    {
        await using var db = await service.OpenAsync();
        await db.Jobs.ExecuteDeleteAsync(Cancel);
    }
}
