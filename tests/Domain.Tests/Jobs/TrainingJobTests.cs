using TrainingService.Domain.Jobs;

namespace TrainingService.Domain.Tests.Jobs;

public sealed class TrainingJobTests
{
    private static readonly DateTimeOffset Now = new(2030, 1, 2, 3, 4, 5, TimeSpan.Zero);

    /// <summary>The whole table: rows are states, columns the states that may follow.</summary>
    private static readonly Dictionary<JobStatus, JobStatus[]> Allowed = new()
    {
        [JobStatus.Queued] = [JobStatus.Running, JobStatus.Paused, JobStatus.Cancelled, JobStatus.Failed],
        [JobStatus.Running] = [JobStatus.Succeeded, JobStatus.Failed, JobStatus.Cancelling, JobStatus.Paused, JobStatus.Queued],
        [JobStatus.Paused] = [JobStatus.Queued, JobStatus.Cancelled],
        [JobStatus.Cancelling] = [JobStatus.Cancelled, JobStatus.Succeeded, JobStatus.Failed],
        [JobStatus.Succeeded] = [],
        [JobStatus.Failed] = [],
        [JobStatus.Cancelled] = [],
    };

    public static TheoryData<JobStatus, JobStatus> Pairs()
    {
        var pairs = new TheoryData<JobStatus, JobStatus>();
        foreach (var from in Enum.GetValues<JobStatus>())
        {
            foreach (var to in Enum.GetValues<JobStatus>())
            {
                pairs.Add(from, to);
            }
        }

        return pairs;
    }

    [Theory]
    [MemberData(nameof(Pairs))]
    public void The_table_allows_exactly_these_moves(JobStatus from, JobStatus to) =>
        Assert.Equal(Allowed[from].Contains(to), TrainingJob.CanMove(from, to));

    [Fact]
    public void A_final_state_is_one_without_a_way_out() =>
        Assert.All(Enum.GetValues<JobStatus>(), status => Assert.Equal(Allowed[status].Length == 0, TrainingJob.IsFinal(status)));

    [Fact]
    public void A_new_job_waits_with_history_and_event()
    {
        var job = Submit();

        Assert.Equal((JobStatus.Queued, 0, 0L), (job.Status, job.Attempt, job.LeaseToken));
        Assert.Equal([(1, JobStatus.Queued)], job.History.Select(h => (h.Ordinal, h.Status)));
        Assert.Equal([1L], job.Events.Select(e => e.Sequence));
    }

    [Fact]
    public void Starting_raises_attempt_and_token_and_takes_the_lease()
    {
        var job = Running();

        Assert.Equal((JobStatus.Running, 1, 1L, "worker"), (job.Status, job.Attempt, job.LeaseToken, job.LeaseOwner));
        Assert.Equal(Now.AddSeconds(60), job.LeaseExpiresAt);
        Assert.Equal(Now, job.StartedAt);
    }

    [Fact]
    public void Cancelling_a_queued_job_ends_it_at_once()
    {
        var job = Submit();
        job.Cancel(Now);

        Assert.Equal((JobStatus.Cancelled, Now, Now), (job.Status, job.CancelRequestedAt!.Value, job.FinishedAt!.Value));
    }

    [Fact]
    public void Cancelling_a_running_job_asks_its_worker_and_asking_twice_changes_nothing()
    {
        var job = Running();
        job.Cancel(Now);
        job.Cancel(Now.AddSeconds(9));

        Assert.Equal((JobStatus.Cancelling, Now, "worker"), (job.Status, job.CancelRequestedAt, job.LeaseOwner));
        Assert.Null(job.FinishedAt);
        Assert.Equal(3, job.History.Count);

        job.ConfirmCancelled(Now.AddSeconds(10));
        Assert.Equal((JobStatus.Cancelled, null), (job.Status, job.LeaseOwner));
    }

    [Fact]
    public void A_run_that_ends_before_it_hears_of_the_cancel_keeps_its_result()
    {
        var job = Running();
        job.Cancel(Now);
        job.Succeed("ft:a", null, Now);

        Assert.Equal((JobStatus.Succeeded, "ft:a"), (job.Status, job.FineTunedModel));
    }

    [Fact]
    public void A_lost_worker_is_counted_and_a_shutdown_is_not()
    {
        var job = Running();
        job.Requeue("its worker was lost", RequeueCause.WorkerLost, Now.AddSeconds(5), Now);
        Assert.Equal((JobStatus.Queued, 1, Now.AddSeconds(5), null), (job.Status, job.RecoveryCount, job.NotBefore!.Value, job.LeaseOwner));

        job.Start("other", TimeSpan.FromSeconds(60), Now);
        job.Requeue("its worker shut down", RequeueCause.HandedOver, Now, Now);
        Assert.Equal((1, 2, 2L), (job.RecoveryCount, job.Attempt, job.LeaseToken));
    }

    [Fact]
    public void Only_failures_of_the_platform_count_as_failures()
    {
        var job = Running();
        job.Requeue("storage", RequeueCause.PlatformFailure, Now, Now);
        Assert.Equal((JobStatus.Queued, 1, 0), (job.Status, job.FailureCount, job.RecoveryCount));
    }

    [Fact]
    public void Pausing_a_waiting_job_sets_it_aside_at_once()
    {
        var job = Submit();
        job.Pause(Now);
        job.Pause(Now);
        Assert.Equal((JobStatus.Paused, null, 2), (job.Status, job.PauseRequestedAt, job.History.Count));

        job.Resume(Now);
        Assert.Equal(JobStatus.Queued, job.Status);
    }

    [Fact]
    public void Pausing_a_running_job_asks_its_worker_and_asking_twice_changes_nothing()
    {
        var job = Running();
        job.Pause(Now);
        job.Pause(Now.AddSeconds(9));
        Assert.Equal((JobStatus.Running, Now, "worker", 3), (job.Status, job.PauseRequestedAt, job.LeaseOwner, job.Events.Count));

        job.ConfirmPaused(Now.AddSeconds(10));
        Assert.Equal((JobStatus.Paused, null, null), (job.Status, job.PauseRequestedAt, job.LeaseOwner));
    }

    [Fact]
    public void A_pause_is_withdrawn_by_resuming_and_a_worker_that_obeyed_it_gives_the_job_back()
    {
        var job = Running();
        job.Pause(Now);
        job.Resume(Now);
        Assert.Equal((JobStatus.Running, null), (job.Status, job.PauseRequestedAt));
        Assert.Throws<InvalidTransitionException>(() => job.Resume(Now));

        job.ConfirmPaused(Now);
        Assert.Equal((JobStatus.Queued, Now, 0, 0), (job.Status, job.NotBefore, job.FailureCount, job.RecoveryCount));
    }

    [Fact]
    public void A_pausing_job_can_be_cancelled_and_can_end()
    {
        var cancelled = Running();
        cancelled.Pause(Now);
        cancelled.Cancel(Now);
        Assert.Equal((JobStatus.Cancelling, null), (cancelled.Status, cancelled.PauseRequestedAt));
        Assert.Throws<InvalidTransitionException>(() => cancelled.Pause(Now));
        Assert.Throws<InvalidTransitionException>(() => cancelled.ConfirmPaused(Now));

        var succeeded = Running();
        succeeded.Pause(Now);
        succeeded.Succeed("ft:a", null, Now);
        Assert.Equal((JobStatus.Succeeded, null), (succeeded.Status, succeeded.PauseRequestedAt));

        var failed = Running();
        failed.Pause(Now);
        failed.Fail(new JobFailure(FailureCodes.InvalidData, "x", null, null), Now);
        Assert.Equal((JobStatus.Failed, null), (failed.Status, failed.PauseRequestedAt));
    }

    [Theory]
    [InlineData(RequeueCause.HandedOver, 0, 0)]
    [InlineData(RequeueCause.WorkerLost, 1, 0)]
    [InlineData(RequeueCause.PlatformFailure, 0, 1)]
    public void Whatever_ends_the_attempt_of_a_pausing_job_leaves_it_paused(RequeueCause cause, int recoveries, int failures)
    {
        var job = Running();
        job.Pause(Now);
        job.Requeue("x", cause, Now, Now);
        Assert.Equal((JobStatus.Paused, recoveries, failures, null), (job.Status, job.RecoveryCount, job.FailureCount, job.PauseRequestedAt));
    }

    [Fact]
    public void Pausing_an_ended_job_throws()
    {
        var job = Submit();
        job.Cancel(Now);
        Assert.Throws<InvalidTransitionException>(() => job.Pause(Now));
        Assert.Throws<InvalidTransitionException>(() => job.Resume(Now));
    }

    [Fact]
    public void Running_time_adds_up_and_a_lost_workers_ends_with_its_lease()
    {
        var job = Running();
        job.Requeue("x", RequeueCause.HandedOver, Now, Now.AddSeconds(20));
        Assert.Equal((20.0, null), (job.RunSeconds, job.AttemptStartedAt));

        job.Start("worker", TimeSpan.FromSeconds(60), Now.AddSeconds(100));
        job.Requeue("x", RequeueCause.WorkerLost, Now, Now.AddSeconds(500));
        Assert.Equal(80.0, job.RunSeconds);
    }

    [Fact]
    public void A_job_without_progress_is_marked_once_and_only_while_it_runs()
    {
        var waiting = Submit();
        waiting.MarkStalled(Now);
        Assert.Null(waiting.StalledSince);

        var job = Running();
        job.MarkStalled(Now.AddMinutes(15));
        job.MarkStalled(Now.AddMinutes(16));
        Assert.Equal((Now, 3), (job.StalledSince, job.Events.Count));
        Assert.Contains("15 minutes", job.Events[^1].Message, StringComparison.Ordinal);

        job.Requeue("x", RequeueCause.PlatformFailure, Now, Now.AddMinutes(17));
        Assert.Null(job.StalledSince);
    }

    [Fact]
    public void A_failure_says_who_must_act()
    {
        var job = Running();
        job.Fail(new JobFailure(FailureCodes.InvalidData, "Row 3 has no text; add it.", "train:3", "log"), Now);

        Assert.Equal((JobStatus.Failed, Responsibility.User), (job.Status, job.Failure!.Responsibility));
        Assert.Equal((EventLevel.Error, "Row 3 has no text; add it."), (job.Events[^1].Level, job.Events[^1].Message));
    }

    [Theory]
    [InlineData(FailureCodes.InvalidData, Responsibility.User)]
    [InlineData(FailureCodes.InvalidSpec, Responsibility.User)]
    [InlineData(FailureCodes.OutOfMemory, Responsibility.User)]
    [InlineData(FailureCodes.Diverged, Responsibility.User)]
    [InlineData(FailureCodes.Timeout, Responsibility.User)]
    [InlineData(FailureCodes.Storage, Responsibility.Platform)]
    [InlineData(FailureCodes.WorkerLost, Responsibility.Platform)]
    [InlineData(FailureCodes.Internal, Responsibility.Platform)]
    public void Each_code_has_one_who_is_responsible(string code, Responsibility who) =>
        Assert.Equal(who, FailureCodes.ResponsibilityFor(code));

    [Fact]
    public void An_illegal_move_throws_and_changes_nothing()
    {
        var job = Submit();
        job.Cancel(Now);
        var history = job.History.Count;

        var thrown = Assert.Throws<InvalidTransitionException>(() => job.Start("worker", TimeSpan.FromSeconds(1), Now));

        Assert.Equal("job.invalid_transition", thrown.Code);
        Assert.Throws<InvalidTransitionException>(() => job.Cancel(Now));
        Assert.Throws<InvalidTransitionException>(() => job.Succeed("ft:a", null, Now));
        Assert.Throws<InvalidTransitionException>(() => job.Fail(new JobFailure(FailureCodes.Internal, "x", null, null), Now));
        Assert.Throws<InvalidTransitionException>(() => job.Requeue("x", RequeueCause.HandedOver, Now, Now));
        Assert.Equal((JobStatus.Cancelled, history, 0), (job.Status, job.History.Count, job.Attempt));
    }

    [Fact]
    public void Event_numbers_rise_by_one()
    {
        var job = Running();
        job.Record(EventLevel.Info, JobEvent.MessageType, "a", null, Now);
        job.Record(EventLevel.Info, JobEvent.MetricsType, "b", "{}", Now);

        Assert.Equal([1L, 2, 3, 4], job.Events.Select(e => e.Sequence));
        Assert.Equal(4, job.LastEventSequence);
    }

    private static TrainingJob Submit() => TrainingJob.Submit(
        new NewJob { ProjectId = Guid.NewGuid(), SpecJson = "{}", RequestJson = "{}", Model = "tiny" }, Now);

    private static TrainingJob Running()
    {
        var job = Submit();
        job.Start("worker", TimeSpan.FromSeconds(60), Now);
        return job;
    }
}
