using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Projects;
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
    public async Task The_last_lines_of_a_log_replace_those_before()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        foreach (var text in new[] { "one", "two", "three" })
        {
            var lease = (await service.Jobs.ClaimAsync("worker", Lease, Cancel))!;
            await lease.StoreLogAsync("before " + text, Cancel);
            await lease.StoreLogAsync(text, Cancel);
            await using var db = await service.OpenAsync();
            var log = await db.Logs.AsNoTracking().SingleAsync(Cancel);
            Assert.Equal((id, lease.Attempt, text), (log.JobId, log.Attempt, log.Text));
            await lease.GiveBackAsync("shutdown", null, Cancel);
        }
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
        await Refused(() => old.ReadRequestAsync(Cancel));
        await Refused(() => old.ReportAsync(Report(7, at), Cancel));
        await Refused(() => old.AddCheckpointAsync(Checkpoint(old, at), "saved", Cancel));
        await Refused(() => old.StoreLogAsync("late", Cancel));
        await Refused(() => old.SucceedAsync("ft:late", [], null, null, Cancel));
        await Refused(() => old.FailAsync(new JobFailure(FailureCodes.Internal, "late", null, null), [], Cancel));
        await Refused(() => old.ConfirmCancelledAsync([], Cancel));
        await Refused(() => old.ConfirmPausedAsync(null, Cancel));
        await Refused(() => old.GiveBackAsync("late", null, Cancel));
        await Refused(() => old.RetryAsync("late", TimeSpan.Zero, [], Cancel));
        await Refused(() => old.SucceedAsync("ft:late", [Artifact(id)], Results(), null, Cancel));

        var after = await service.ReadAsync(id);
        Assert.Equal((2, before.LastEventSequence, 0), (after.Attempt, after.LastEventSequence, after.Step));
        Assert.Equal(OwnerRequest.None, await current.RenewAsync(Lease, Cancel));
        await using var db = await service.OpenAsync();
        Assert.False(await db.Metrics.AnyAsync(Cancel));
        Assert.False(await db.Checkpoints.AnyAsync(Cancel));
        Assert.False(await db.Artifacts.AnyAsync(Cancel));
        Assert.False(await db.Files.AnyAsync(Cancel));

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
    public async Task The_times_of_a_story_rise_with_its_numbers_whatever_the_workers_clock_says()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        foreach (var hours in new[] { 3, -3, 0 })
        {
            await lease.ReportAsync(Report(1, TimeProvider.System.GetUtcNow().AddHours(hours)), Cancel);
        }

        await lease.GiveBackAsync("its worker shut down", null, Cancel);
        await using var db = await service.OpenAsync();
        var times = await db.Events.Where(e => e.JobId == id).OrderBy(e => e.Sequence).Select(e => e.CreatedAt).ToListAsync(Cancel);
        Assert.Equal(6, times.Count);
        Assert.Equal(times.Order(), times);
    }

    [Fact]
    public async Task Figures_of_a_later_attempt_replace_those_of_an_earlier_one()
    {
        await using var service = await TestService.CreateAsync(profile);
        await service.SubmitAsync();
        var at = TimeProvider.System.GetUtcNow();
        var first = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        await first.ReportAsync(Report(3, at), Cancel);
        await first.GiveBackAsync("test", null, Cancel);
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

        Assert.Equal(OwnerRequest.Cancel, await lease.RenewAsync(Lease, Cancel));
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
    public async Task A_pause_request_reaches_the_worker_and_can_be_withdrawn()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        await Change(service, id, (job, now) => job.Pause(now));
        Assert.Equal((OwnerRequest.Pause, OwnerRequest.Pause), (await lease.ReadRequestAsync(Cancel), await lease.RenewAsync(Lease, Cancel)));
        await Change(service, id, (job, now) => job.Resume(now));
        Assert.Equal((OwnerRequest.None, OwnerRequest.None), (await lease.ReadRequestAsync(Cancel), await lease.RenewAsync(Lease, Cancel)));

        Assert.Equal(JobStatus.Queued, await lease.ConfirmPausedAsync(null, Cancel));   // the worker had heard of it already

        var again = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        await Change(service, id, (job, now) => job.Pause(now));
        Assert.Equal(JobStatus.Paused, await again.ConfirmPausedAsync("beware", Cancel));
        await using var db = await service.OpenAsync();
        Assert.True(await db.Events.AnyAsync(e => e.Level == EventLevel.Warn && e.Message == "beware", Cancel));
        Assert.Null(await service.Jobs.ClaimAsync("worker-1", Lease, Cancel));
    }

    [Fact]
    public async Task A_lost_worker_leaves_a_pausing_job_paused_whatever_the_cap()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        await service.Jobs.ClaimAsync("worker-1", TimeSpan.FromMilliseconds(-10), Cancel);
        await Change(service, id, (job, now) => job.Pause(now));

        await service.Jobs.RecoverAsync(expiredOnly: true, 0, TimeSpan.Zero, Cancel);

        var job = await service.ReadAsync(id);
        Assert.Equal((JobStatus.Paused, 1, null), (job.Status, job.RecoveryCount, job.PauseRequestedAt));
    }

    [Fact]
    public async Task An_expired_lease_that_nobody_took_is_renewed_and_its_time_is_measured_from_before_the_write()
    {
        await using var service = await TestService.CreateAsync(profile);
        await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", TimeSpan.FromMilliseconds(-10), Cancel))!;
        Assert.True(lease.Remaining < TimeSpan.Zero);

        await lease.RenewAsync(Lease, Cancel);

        Assert.InRange(lease.Remaining, TimeSpan.FromSeconds(30), Lease);
        Assert.Equal(0, await service.Jobs.RecoverAsync(expiredOnly: true, 5, TimeSpan.Zero, Cancel));
    }

    [Fact]
    public async Task A_job_without_progress_is_marked_once_then_gets_another_attempt_and_at_last_fails()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        async Task<int> Check(int warn, int end, int maxFailures = 5) => await service.Jobs.CheckProgressAsync(
            TimeSpan.FromMinutes(warn), TimeSpan.FromMinutes(end), maxFailures, TimeSpan.Zero, Cancel);
        Assert.Equal(0, await Check(10, 20));
        Assert.Null((await service.ReadAsync(id)).StalledSince);

        await Silence(15);
        Assert.Equal((0, 0), (await Check(10, 20), await Check(10, 20)));
        Assert.NotNull((await service.ReadAsync(id)).StalledSince);
        await using var db = await service.OpenAsync();
        Assert.Equal(1, await db.Events.CountAsync(e => e.Level == EventLevel.Warn, Cancel));
        await lease.ReportAsync(new ProgressBatch(), Cancel);
        Assert.Null((await service.ReadAsync(id)).StalledSince);

        await Silence(25);
        Assert.Equal(1, await Check(10, 20));
        await Assert.ThrowsAsync<LeaseLostException>(() => lease.ReportAsync(new ProgressBatch(), Cancel));
        var job = await service.ReadAsync(id);
        Assert.Equal((JobStatus.Queued, 1, 0, null), (job.Status, job.FailureCount, job.RecoveryCount, job.StalledSince));

        Assert.NotNull(await service.Jobs.ClaimAsync("worker-2", Lease, Cancel));
        await Silence(25);
        Assert.Equal(1, await Check(10, 20, maxFailures: 1));
        Assert.Equal((JobStatus.Failed, FailureCodes.Internal), ((await service.ReadAsync(id)).Status, (await service.ReadAsync(id)).Failure!.Code));

        async Task Silence(int minutes)
        {
            var at = TimeProvider.System.GetUtcNow().AddMinutes(-minutes);
            await using var context = await service.OpenAsync();
            await context.Jobs.Where(j => j.Id == id).ExecuteUpdateAsync(set => set.SetProperty(j => j.LastProgressAt, at), Cancel);
        }
    }

    [Fact]
    public async Task The_same_batch_is_stored_once()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        var batch = Report(3, TimeProvider.System.GetUtcNow());

        await lease.ReportAsync(batch, Cancel);
        await lease.ReportAsync(batch, Cancel);   // as after an answer that got lost

        await using var db = await service.OpenAsync();
        Assert.Equal(1, await db.Events.CountAsync(e => e.Type == JobEvent.MetricsType, Cancel));
        Assert.Equal(3, (await service.ReadAsync(id)).LastEventSequence);
    }

    [Fact]
    public async Task Running_time_adds_up_over_attempts_and_a_retry_counts_as_a_failure()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var first = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        Assert.Equal((0, 0.0, null), (first.FailureCount, first.RunSeconds, first.MaxRunSeconds));
        await Task.Delay(20, Cancel);
        await first.RetryAsync("storage: away", TimeSpan.Zero, [], Cancel);

        var second = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        Assert.Equal((1, 2), (second.FailureCount, second.Attempt));
        Assert.InRange(second.RunSeconds, 0.005, 30);
        await second.GiveBackAsync("its worker shut down", null, Cancel);

        var job = await service.ReadAsync(id);
        Assert.Equal((1, 0, JobStatus.Queued), (job.FailureCount, job.RecoveryCount, job.Status));
        Assert.True(job.RunSeconds > second.RunSeconds);
        Assert.NotNull(await service.Jobs.ClaimAsync("worker-2", Lease, Cancel));   // at once
    }

    [Fact]
    public async Task Old_checkpoints_are_forgotten_but_the_best_stays()
    {
        await using var service = await TestService.CreateAsync(profile);
        await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        var at = TimeProvider.System.GetUtcNow();
        foreach (var step in new[] { 1, 2, 3, 4, 5 })
        {
            await lease.AddCheckpointAsync(Checkpoint(lease, at, step, best: step <= 2), "saved", Cancel);
        }

        Assert.Equal(2, (await lease.PruneCheckpointsAsync(2, Cancel)).Count);
        Assert.Empty(await lease.PruneCheckpointsAsync(2, Cancel));

        await using var db = await service.OpenAsync();
        Assert.Equal([2, 4, 5], await db.Checkpoints.OrderBy(c => c.Step).Select(c => c.Step).ToListAsync(Cancel));
    }

    [Fact]
    public async Task A_job_is_not_claimed_before_its_time_and_priority_comes_before_fair_share()
    {
        await using var service = await TestService.CreateAsync(profile);
        var start = TimeProvider.System.GetUtcNow();
        var later = await service.SubmitAsync(priority: 9, at: start);
        var idle = await service.SubmitAsync(Guid.NewGuid(), at: start);
        var urgent = await service.SubmitAsync(priority: 1, at: start.AddSeconds(1));
        var first = (await service.Jobs.ClaimAsync("worker", Lease, Cancel))!;
        await first.RetryAsync("storage: away", TimeSpan.FromMinutes(5), [], Cancel);
        Assert.Equal(later, first.JobId);

        Assert.Equal(urgent, (await service.Jobs.ClaimAsync("worker", Lease, Cancel))!.JobId);
        Assert.Equal(idle, (await service.Jobs.ClaimAsync("worker", Lease, Cancel))!.JobId);
        Assert.Null(await service.Jobs.ClaimAsync("worker", Lease, Cancel));
        await using var db = await service.OpenAsync();
        await db.Jobs.Where(j => j.Id == later).ExecuteUpdateAsync(
            set => set.SetProperty(j => j.NotBefore, start.AddSeconds(-1)), Cancel);
        Assert.Equal(later, (await service.Jobs.ClaimAsync("worker", Lease, Cancel))!.JobId);
    }

    [Fact]
    public async Task Success_makes_artifacts_and_checkpoints_known_together()
    {
        await using var service = await TestService.CreateAsync(profile);
        var id = await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        await lease.AddCheckpointAsync(Checkpoint(lease, TimeProvider.System.GetUtcNow()), "Checkpoint saved at step 5.", Cancel);

        await lease.SucceedAsync("ft:tiny:default:x:12345678", [Artifact(id)], null, null, Cancel);

        var job = await service.ReadAsync(id);
        Assert.Equal((JobStatus.Succeeded, "ft:tiny:default:x:12345678"), (job.Status, job.FineTunedModel));
        Assert.NotNull(job.FinishedAt);
        Assert.Null(job.LeaseOwner);
        await using var db = await service.OpenAsync();
        Assert.Equal(1, await db.Artifacts.CountAsync(Cancel));
        Assert.Equal(5, (await db.Checkpoints.SingleAsync(Cancel)).Step);
    }

    private static async Task Change(TestService service, Guid id, Action<TrainingJob, DateTimeOffset> change)
    {
        await using var db = await service.OpenAsync();
        await db.ChangeJobAsync(j => j.Id == id, change, Cancel);
    }

    private static ProgressBatch Report(int step, DateTimeOffset at) => new()
    {
        Step = step,
        TotalSteps = 10,
        TrainedTokens = step * 10,
        Metrics = [new MetricLine(step, "train", "{\"train/loss\":1.5}", at)],
        Events = [new EventLine(EventLevel.Info, JobEvent.MetricsType, $"Step {step}", "{\"step\":1}", at)],
    };

    private static Artifact Artifact(Guid job) => new()
    {
        Id = Guid.NewGuid(),
        JobId = job,
        Attempt = 1,
        Path = "adapter/a",
        Bytes = 1,
        Sha256 = "00",
        ContentType = "x",
        StorageKey = "k",
    };

    private static DataFile Results() => new()
    {
        Id = Guid.NewGuid(),
        ProjectId = Project.BuiltIn,
        FileName = "step_metrics.csv",
        Purpose = "fine-tune-results",
        Bytes = 1,
        Sha256 = "00",
        StorageKey = "k",
        CreatedAt = TimeProvider.System.GetUtcNow(),
    };

    private static JobCheckpoint Checkpoint(JobLease lease, DateTimeOffset at, int step = 5, bool best = false) => new()
    {
        Id = Guid.NewGuid(),
        JobId = lease.JobId,
        Attempt = lease.Attempt,
        Step = step,
        Best = best,
        MetricsJson = "{}",
        StoragePrefix = lease.StoragePrefix,
        CreatedAt = at,
    };
}

public sealed class SqliteJobStoreTests() : JobStoreTests(ServiceProfile.Embedded);

public sealed class PostgresJobStoreTests() : JobStoreTests(ServiceProfile.Production);
