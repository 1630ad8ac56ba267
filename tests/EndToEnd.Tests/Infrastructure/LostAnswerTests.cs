using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Diagnostics;
using Microsoft.Extensions.DependencyInjection;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Data;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>A connection that is cut after the database has committed: the worker asks again, and nothing is doubled or called lost.</summary>
public abstract class LostAnswerTests(ServiceProfile profile)
{
    private static readonly TimeSpan Lease = TimeSpan.FromSeconds(60);
    private readonly CutAfterCommit _cut = new();

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_checkpoint_is_known_once()
    {
        await using var service = await StartAsync();
        var lease = await ClaimAsync(service);
        await TwiceAsync(() => lease.AddCheckpointAsync(Checkpoint(lease, 1), "saved", Cancel));
        await lease.AddCheckpointAsync(Checkpoint(lease, 2), "saved", Cancel);

        await using var db = await service.OpenAsync();
        Assert.Equal([1, 2], await db.Checkpoints.OrderBy(c => c.Step).Select(c => c.Step).ToListAsync(Cancel));
        Assert.Equal(2, await db.Events.CountAsync(e => e.Message == "saved", Cancel));
        await lease.GiveBackAsync("its worker shut down", null, Cancel);
        await Assert.ThrowsAsync<LeaseLostException>(() => lease.AddCheckpointAsync(Checkpoint(lease, 3), "saved", Cancel));
    }

    [Fact]
    public async Task The_end_of_a_job_is_told_once()
    {
        await using var service = await StartAsync();
        var failure = new JobFailure(FailureCodes.Internal, "failed", null, null);
        await EndsAsync(service, JobStatus.Succeeded, lease => lease.SucceedAsync("ft:one", [Log(lease)], null, null, Cancel));
        await EndsAsync(service, JobStatus.Failed, lease => lease.FailAsync(failure, [Log(lease)], Cancel));
        await EndsAsync(
            service, JobStatus.Cancelled, lease => lease.ConfirmCancelledAsync([Log(lease)], Cancel), (job, now) => job.Cancel(now));
        await EndsAsync(
            service, JobStatus.Paused, async lease => Assert.Equal(JobStatus.Paused, await lease.ConfirmPausedAsync(null, Cancel)),
            (job, now) => job.Pause(now));
        await EndsAsync(
            service, JobStatus.Queued,
            async lease => Assert.Equal(JobStatus.Queued, await lease.RetryAsync("storage", TimeSpan.FromHours(1), [Log(lease)], Cancel)));
        await EndsAsync(
            service, JobStatus.Queued, async lease => Assert.Equal(JobStatus.Queued, await lease.GiveBackAsync("shutdown", "late", Cancel)));
    }

    /// <summary>Another worker may have the job by the time that its last one asks again.</summary>
    [Fact]
    public async Task What_was_given_back_stays_so_when_another_worker_has_claimed_it()
    {
        await using var service = await StartAsync();
        var lease = await ClaimAsync(service);
        _cut.Next = true;
        await Assert.ThrowsAsync<TimeoutException>(() => lease.GiveBackAsync("shutdown", null, Cancel));
        var next = await service.Jobs.ClaimAsync("other", Lease, Cancel);

        Assert.Equal(JobStatus.Queued, await lease.GiveBackAsync("shutdown", null, Cancel));

        Assert.Equal(lease.JobId, next!.JobId);
        Assert.Equal((JobStatus.Running, 2), ((await service.ReadAsync(lease.JobId)).Status, next.Attempt));
        await Assert.ThrowsAsync<LeaseLostException>(() => lease.RenewAsync(Lease, Cancel));
    }

    /// <summary>Nothing was stored, and the job is somebody else's: that is a lost lease, whatever was sent before.</summary>
    [Fact]
    public async Task What_was_rolled_back_does_not_count_as_done()
    {
        await using var service = await StartAsync();
        var lease = await ClaimAsync(service);
        _cut.NextBefore = true;
        await Assert.ThrowsAsync<TimeoutException>(() => lease.SucceedAsync("ft:never", [], null, null, Cancel));
        await service.Jobs.RecoverAsync(expiredOnly: false, 5, TimeSpan.Zero, Cancel);

        await Assert.ThrowsAsync<LeaseLostException>(() => lease.SucceedAsync("ft:never", [], null, null, Cancel));

        Assert.Equal(JobStatus.Queued, (await service.ReadAsync(lease.JobId)).Status);
    }

    private Task<TestService> StartAsync() => TestService.CreateAsync(profile, services =>
    {
        services.ConfigureDbContext<SqliteDbContext>(options => options.AddInterceptors(_cut));
        services.ConfigureDbContext<PostgresDbContext>(options => options.AddInterceptors(_cut));
    });

    private static async Task<JobLease> ClaimAsync(TestService service)
    {
        var id = await service.SubmitAsync();
        var lease = await service.Jobs.ClaimAsync("worker", Lease, Cancel);
        Assert.Equal(id, lease?.JobId);
        return lease!;
    }

    private async Task EndsAsync(
        TestService service, JobStatus status, Func<JobLease, Task> end, Action<TrainingJob, DateTimeOffset>? owner = null)
    {
        var lease = await ClaimAsync(service);
        await using var db = await service.OpenAsync();
        if (owner is not null)
        {
            await db.ChangeJobAsync(job => job.Id == lease.JobId, owner, Cancel);
        }

        await TwiceAsync(() => end(lease));

        var job = await service.ReadAsync(lease.JobId);
        Assert.Equal(status, job.Status);
        Assert.Single(job.History, move => move.Status == status && move.Ordinal > 1);
        Assert.Equal(job.LastEventSequence, await db.Events.CountAsync(e => e.JobId == job.Id, Cancel));
        await db.Jobs.Where(j => j.Id == job.Id).ExecuteDeleteAsync(Cancel);   // the next claim is another job's
    }

    private async Task TwiceAsync(Func<Task> write)
    {
        _cut.Next = true;
        await Assert.ThrowsAsync<TimeoutException>(write);
        await write();
    }

    private static JobCheckpoint Checkpoint(JobLease lease, int step) => new()
    {
        Id = Guid.NewGuid(),
        JobId = lease.JobId,
        Attempt = lease.Attempt,
        Step = step,
        Best = false,
        MetricsJson = "{}",
        StoragePrefix = lease.StoragePrefix,
        CreatedAt = lease.Now(),
    };

    private static Artifact Log(JobLease lease) => new()
    {
        Id = Guid.NewGuid(),
        JobId = lease.JobId,
        Attempt = lease.Attempt,
        Path = "logs/train.log",
        Bytes = 0,
        Sha256 = "",
        ContentType = "text/plain",
        StorageKey = lease.StoragePrefix + "logs/train.log",
    };

    private sealed class CutAfterCommit : DbTransactionInterceptor
    {
        public bool Next { get; set; }

        public bool NextBefore { get; set; }

        public override ValueTask<InterceptionResult> TransactionCommittingAsync(
            DbTransaction transaction, TransactionEventData eventData, InterceptionResult result, CancellationToken cancellationToken = default)
        {
            if (NextBefore)
            {
                NextBefore = false;
                throw new TimeoutException("The connection was cut before the commit.");
            }

            return ValueTask.FromResult(result);
        }

        public override Task TransactionCommittedAsync(
            DbTransaction transaction, TransactionEndEventData eventData, CancellationToken cancellationToken = default)
        {
            if (Next)
            {
                Next = false;
                throw new TimeoutException("The connection was cut after the commit.");
            }

            return Task.CompletedTask;
        }
    }
}

public sealed class LostAnswerOnSqliteTests() : LostAnswerTests(ServiceProfile.Embedded);

public sealed class LostAnswerOnPostgresTests() : LostAnswerTests(ServiceProfile.Production);
