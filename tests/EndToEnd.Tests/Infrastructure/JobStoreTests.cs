using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>The guarantees of claim, lease and recovery, on SQLite and on Postgres alike.</summary>
public abstract class JobStoreTests(ServiceProfile profile)
{
    private static readonly TimeSpan Lease = TimeSpan.FromSeconds(60);

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_claim_starts_the_job_with_history_and_event()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();

        var lease = await service.Jobs.ClaimAsync("worker-1", Lease, Cancel);

        var job = await service.ReadAsync(id);
        Assert.NotNull(lease);
        Assert.Equal(id, lease.JobId);
        Assert.Equal((JobStatus.Running, 1, 1L, "worker-1"), (job.Status, job.Attempt, job.LeaseToken, job.LeaseOwner));
        Assert.InRange(job.LeaseExpiresAt!.Value - job.StartedAt!.Value, TimeSpan.FromSeconds(59), TimeSpan.FromSeconds(61));
        Assert.InRange(TimeProvider.System.GetUtcNow() - job.StartedAt.Value, TimeSpan.FromSeconds(-5), TimeSpan.FromSeconds(30));
        Assert.Equal([JobStatus.Queued, JobStatus.Running], job.History.OrderBy(h => h.Ordinal).Select(h => h.Status));
        await using var db = await service.OpenAsync();
        Assert.Equal([1L, 2L], await db.Events.Where(e => e.JobId == id).OrderBy(e => e.Sequence).Select(e => e.Sequence).ToListAsync(Cancel));
        Assert.Null(await service.Jobs.ClaimAsync("worker-2", Lease, Cancel));
    }

    [Fact]
    public async Task Jobs_are_claimed_by_priority_then_fair_share_then_age()
    {
        await using var service = await TestService.CreateAsync(profile);
        var (busy, idle) = (Guid.NewGuid(), Guid.NewGuid());
        var start = TimeProvider.System.GetUtcNow();
        var first = await service.SubmitAsync(busy, at: start);
        var second = await service.SubmitAsync(busy, at: start.AddSeconds(1));
        var other = await service.SubmitAsync(idle, at: start.AddSeconds(2));
        var urgent = await service.SubmitAsync(busy, priority: 1, at: start.AddSeconds(3));

        var order = new List<Guid>();
        while (await service.Jobs.ClaimAsync("worker", Lease, Cancel) is { } lease)
        {
            order.Add(lease.JobId);
        }

        Assert.Equal([urgent, other, first, second], order);
    }

    [Fact]
    public async Task Two_workers_never_claim_the_same_job()
    {
        await using var service = await TestService.CreateAsync(profile);
        for (var i = 0; i < 12; i++)
        {
            await service.SubmitAsync();
        }

        var claims = await Task.WhenAll(Enumerable.Range(0, 4).Select(worker => Task.Run(
            async () =>
            {
                var mine = new List<Guid>();
                while (await service.Jobs.ClaimAsync($"worker-{worker}", Lease, Cancel) is { } lease)
                {
                    mine.Add(lease.JobId);
                }

                return mine;
            },
            Cancel)));

        var all = claims.SelectMany(mine => mine).ToList();
        Assert.Equal(12, all.Count);
        Assert.Equal(12, all.Distinct().Count());
    }

    [Fact]
    public async Task Every_write_of_a_lost_lease_is_refused_and_changes_nothing()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var old = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        await service.Jobs.RecoverAsync(expiredOnly: false, 5, TimeSpan.Zero, Cancel);
        var current = (await service.Jobs.ClaimAsync("worker-2", Lease, Cancel))!;
        var before = await service.ReadAsync(id);
        var at = TimeProvider.System.GetUtcNow();

        await Refused(() => old.RenewAsync(Lease, Cancel));
        await Refused(() => old.IsCancelRequestedAsync(Cancel));
        await Refused(() => old.ReportAsync(Report(7, at), Cancel));
        await Refused(() => old.AddCheckpointAsync(Checkpoint(old, at), "saved", Cancel));
        await Refused(() => old.SucceedAsync("ft:late", [], null, Cancel));
        await Refused(() => old.FailAsync(new JobFailure(FailureCodes.Internal, "late", null, null), [], Cancel));
        await Refused(() => old.ConfirmCancelledAsync([], Cancel));
        await Refused(() => old.RequeueAsync("late", TimeSpan.Zero, Cancel));

        var after = await service.ReadAsync(id);
        Assert.Equal((2, before.LastEventSequence, 0), (after.Attempt, after.LastEventSequence, after.Step));
        Assert.False(await current.RenewAsync(Lease, Cancel));
        await using var db = await service.OpenAsync();
        Assert.False(await db.Metrics.AnyAsync(Cancel));
        Assert.False(await db.Checkpoints.AnyAsync(Cancel));

        static async Task Refused(Func<Task> write) => await Assert.ThrowsAsync<LeaseLostException>(write);
    }

    [Fact]
    public async Task Progress_is_stored_and_what_is_not_reported_stays()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        var at = TimeProvider.System.GetUtcNow();
        await lease.ReportAsync(new ProgressBatch { Phase = "training" }, Cancel);
        await lease.ReportAsync(Report(3, at), Cancel);
        await lease.ReportAsync(
            new ProgressBatch { Metrics = [new MetricLine(3, "train", "{\"train/extra\":2}", at)] }, Cancel);

        var job = await service.ReadAsync(id);
        Assert.Equal(("training", 3, 10, 30L), (job.Phase, job.Step, job.TotalSteps, job.TrainedTokens));
        await using var db = await service.OpenAsync();
        var metric = await db.Metrics.SingleAsync(Cancel);
        Assert.Equal(
            "{\"train/extra\":2,\"train/loss\":1.5}",
            string.Concat(metric.ValuesJson.Where(c => c != ' ')).Replace("{\"train/loss\":1.5,\"train/extra\":2}", "{\"train/extra\":2,\"train/loss\":1.5}"));
        Assert.InRange(metric.CreatedAt - at, TimeSpan.FromMicroseconds(-1), TimeSpan.FromMicroseconds(1));
        var line = await db.Events.SingleAsync(e => e.Type == JobEvent.MetricsType, Cancel);
        Assert.Equal(3, line.Sequence);
    }

    [Fact]
    public async Task Figures_of_a_later_attempt_replace_those_of_an_earlier_one()
    {
        await using var service = await TestService.CreateAsync(profile);
        await service.SubmitAsync();
        var at = TimeProvider.System.GetUtcNow();
        var first = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        await first.ReportAsync(Report(3, at), Cancel);
        await first.RequeueAsync("test", TimeSpan.Zero, Cancel);
        var second = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        await second.ReportAsync(new ProgressBatch { Metrics = [new MetricLine(3, "train", "{\"other\":1}", at)] }, Cancel);

        await using var db = await service.OpenAsync();
        var metric = await db.Metrics.SingleAsync(Cancel);
        Assert.Equal(2, metric.Attempt);
        Assert.DoesNotContain("train/loss", metric.ValuesJson, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Event_numbers_have_no_gap_and_no_double_while_owner_and_worker_write()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        var worker = Task.Run(
            async () =>
            {
                for (var step = 1; step <= 20; step++)
                {
                    await lease.ReportAsync(Report(step, TimeProvider.System.GetUtcNow()), Cancel);
                }
            },
            Cancel);
        var owner = Task.Run(
            async () =>
            {
                for (var i = 0; i < 5; i++)
                {
                    await using var context = await service.OpenAsync();
                    await context.ChangeJobAsync(
                        j => j.Id == id,
                        j => j.Record(EventLevel.Info, JobEvent.MessageType, "note", null, TimeProvider.System.GetUtcNow()),
                        Cancel);
                }
            },
            Cancel);
        await Task.WhenAll(worker, owner);

        await using var db = await service.OpenAsync();
        var numbers = await db.Events.Where(e => e.JobId == id).OrderBy(e => e.Sequence).Select(e => e.Sequence).ToListAsync(Cancel);
        Assert.Equal(Enumerable.Range(1, 27).Select(n => (long)n), numbers);
    }

    [Fact]
    public async Task A_cancel_request_reaches_the_worker_and_two_writers_cannot_both_win()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        await using var stale = await service.OpenAsync();
        var early = await stale.Jobs.SingleAsync(j => j.Id == id, Cancel);
        await lease.ReportAsync(Report(1, TimeProvider.System.GetUtcNow()), Cancel);
        early.Cancel(TimeProvider.System.GetUtcNow());
        await Assert.ThrowsAsync<DbUpdateConcurrencyException>(() => stale.SaveChangesAsync(Cancel));

        await using var db = await service.OpenAsync();
        await db.ChangeJobAsync(j => j.Id == id, j => j.Cancel(TimeProvider.System.GetUtcNow()), Cancel);

        Assert.True(await lease.RenewAsync(Lease, Cancel));
        await lease.ConfirmCancelledAsync([], Cancel);
        Assert.Equal(JobStatus.Cancelled, (await service.ReadAsync(id)).Status);
    }

    [Fact]
    public async Task An_expired_lease_goes_back_with_back_off_and_fails_above_the_cap()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        await service.Jobs.ClaimAsync("worker-1", TimeSpan.FromMilliseconds(-10), Cancel);

        Assert.Equal(1, await service.Jobs.RecoverAsync(expiredOnly: true, 1, TimeSpan.FromSeconds(30), Cancel));

        var job = await service.ReadAsync(id);
        Assert.Equal((JobStatus.Queued, 1), (job.Status, job.RecoveryCount));
        Assert.InRange(job.NotBefore!.Value - TimeProvider.System.GetUtcNow(), TimeSpan.FromSeconds(20), TimeSpan.FromSeconds(31));
        Assert.Null(await service.Jobs.ClaimAsync("worker-1", Lease, Cancel));
        Assert.Empty(await service.Jobs.EligibleAsync(10, Cancel));

        var other = await service.SubmitAsync();
        await service.Jobs.ClaimAsync("worker-1", TimeSpan.FromMilliseconds(-10), Cancel);
        Assert.Equal(1, await service.Jobs.RecoverAsync(expiredOnly: true, 0, TimeSpan.FromSeconds(30), Cancel));
        var failed = await service.ReadAsync(other);
        Assert.Equal((JobStatus.Failed, FailureCodes.WorkerLost), (failed.Status, failed.Failure!.Code));
    }

    [Fact]
    public async Task A_live_lease_is_left_alone_and_a_lost_cancelling_job_is_cancelled()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        await service.Jobs.ClaimAsync("worker-1", Lease, Cancel);
        Assert.Equal(0, await service.Jobs.RecoverAsync(expiredOnly: true, 5, TimeSpan.Zero, Cancel));

        await using var db = await service.OpenAsync();
        await db.ChangeJobAsync(j => j.Id == id, j => j.Cancel(TimeProvider.System.GetUtcNow()), Cancel);
        Assert.Equal(1, await service.Jobs.RecoverAsync(expiredOnly: false, 5, TimeSpan.Zero, Cancel));
        Assert.Equal(JobStatus.Cancelled, (await service.ReadAsync(id)).Status);
    }

    [Fact]
    public async Task Success_makes_artifacts_and_checkpoints_known_together()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        await lease.AddCheckpointAsync(Checkpoint(lease, TimeProvider.System.GetUtcNow()), "Checkpoint saved at step 5.", Cancel);
        var artifact = new Artifact
        {
            Id = Guid.NewGuid(),
            JobId = id,
            Attempt = 1,
            Path = "adapter/a",
            Bytes = 1,
            Sha256 = "00",
            ContentType = "x",
            StorageKey = "k",
        };

        await lease.SucceedAsync("ft:tiny:default:x:12345678", [artifact], null, Cancel);

        var job = await service.ReadAsync(id);
        Assert.Equal((JobStatus.Succeeded, "ft:tiny:default:x:12345678"), (job.Status, job.FineTunedModel));
        Assert.NotNull(job.FinishedAt);
        Assert.Null(job.LeaseOwner);
        await using var db = await service.OpenAsync();
        Assert.Equal(1, await db.Artifacts.CountAsync(Cancel));
        Assert.Equal(5, (await db.Checkpoints.SingleAsync(Cancel)).Step);
    }

    private static ProgressBatch Report(int step, DateTimeOffset at) => new()
    {
        Step = step,
        TotalSteps = 10,
        TrainedTokens = step * 10,
        Metrics = [new MetricLine(step, "train", "{\"train/loss\":1.5}", at)],
        Events = [new EventLine(EventLevel.Info, JobEvent.MetricsType, $"Step {step}", "{\"step\":1}", at)],
    };

    private static JobCheckpoint Checkpoint(JobLease lease, DateTimeOffset at) => new()
    {
        Id = Guid.NewGuid(),
        JobId = lease.JobId,
        Attempt = lease.Attempt,
        Step = 5,
        Best = false,
        MetricsJson = "{}",
        StoragePrefix = lease.StoragePrefix,
        CreatedAt = at,
    };
}

public sealed class SqliteJobStoreTests() : JobStoreTests(ServiceProfile.Embedded);

public sealed class PostgresJobStoreTests() : JobStoreTests(ServiceProfile.Production);
