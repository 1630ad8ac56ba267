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
        job.Requeue("its worker was lost", workerLost: true, Now.AddSeconds(5), Now);
        Assert.Equal((JobStatus.Queued, 1, Now.AddSeconds(5), null), (job.Status, job.RecoveryCount, job.NotBefore!.Value, job.LeaseOwner));

        job.Start("other", TimeSpan.FromSeconds(60), Now);
        job.Requeue("its worker shut down", workerLost: false, Now, Now);
        Assert.Equal((1, 2, 2L), (job.RecoveryCount, job.Attempt, job.LeaseToken));
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
        Assert.Throws<InvalidTransitionException>(() => job.Requeue("x", false, Now, Now));
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
