using CsCheck;
using TrainingService.Domain.Jobs;
using TrainingService.EndToEnd.Tests.Infrastructure;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.EndToEnd.Tests.StateMachine;

/// <summary>
/// Random histories, one step after the other, against a model. CsCheck prints the seed and the smallest history that fails;
/// <c>CsCheck_Seed</c> repeats one, <c>CsCheck_Iter</c> runs more.
/// </summary>
public abstract class SequentialHistoryTests(ServiceProfile profile, int histories)
{
    [Fact]
    public async Task Jobs_do_what_the_model_says()
    {
        await using var service = await TestService.CreateAsync(profile);
        await Step.Histories.SampleAsync(
            steps => RunAsync(service, steps), iter: histories, threads: 1, print: steps => string.Join(' ', steps.AsEnumerable()));
    }

    private static async Task RunAsync(TestService service, Step[] steps)
    {
        var world = new World(service);
        await world.ClearAsync();
        var jobs = new List<ModelJob>();
        var leases = new List<JobLease>();
        foreach (var step in steps)
        {
            var touched = await DoAsync(world, step, jobs, leases);
            if (touched is not null)
            {
                await CompareAsync(service, touched, step);
            }
        }

        foreach (var job in jobs)
        {
            await CompareAsync(service, job, null);
        }

        await Invariants.CheckAllAsync(service);
    }

    /// <returns>The job that the step was about; null: none.</returns>
    private static async Task<ModelJob?> DoAsync(World world, Step step, List<ModelJob> jobs, List<JobLease> leases)
    {
        switch (step.Kind)
        {
            case StepKind.Submit:
                var (project, priority) = (step.Extra % 3, step.Extra / 6);
                jobs.Add(new ModelJob(await world.SubmitAsync(project, priority, jobs.Count), project, priority, jobs.Count));
                return jobs[^1];
            case StepKind.Claim:
                return await ClaimAsync(world, jobs, leases);
            case StepKind.Recover:
                var lost = jobs.Where(job => job.IsLive && job.IsExpired).ToList();
                lost.ForEach(job => job.Recover());
                Assert.Equal(lost.Count, await world.RecoverAsync());
                return lost.FirstOrDefault();
        }

        if (step.Kind is StepKind.Expire or StepKind.MakeDue or StepKind.Cancel or StepKind.Pause or StepKind.Resume)
        {
            return jobs.Count == 0 ? null : await OwnAsync(world, step.Kind, jobs[step.Pick % jobs.Count]);
        }

        if (leases.Count == 0)
        {
            return null;
        }

        // Half of the steps are the newest worker's; the others may be of one that lost its lease long ago.
        var lease = step.Pick % 2 == 0 ? leases[^1] : leases[step.Pick / 2 % leases.Count];
        var mine = jobs.Single(job => job.Id == lease.JobId);
        var before = mine.Request;
        var answer = mine.Work(step.Kind, lease.Token, step.Extra);
        await AnswersAsync(answer, () => world.WorkAsync(step.Kind, lease, [.. Enumerable.Range(0, step.Extra).Select(i => $"event {i}")]), step.Kind);
        if (step.Kind == StepKind.Renew && answer == Answer.Done)
        {
            Assert.Equal(before, await lease.ReadRequestAsync(TestContext.Current.CancellationToken));
        }

        return mine;
    }

    private static async Task<ModelJob?> ClaimAsync(World world, List<ModelJob> jobs, List<JobLease> leases)
    {
        var best = jobs.Where(job => job.Status == JobStatus.Queued && !job.IsDelayed)
            .OrderByDescending(job => job.Priority)
            .ThenBy(job => jobs.Count(other => other.IsLive && other.Project == job.Project))
            .ThenBy(job => job.Order)
            .FirstOrDefault();
        var lease = await world.ClaimAsync($"worker-{leases.Count}");
        Assert.Equal(best?.Id, lease?.JobId);
        if (lease is not null)
        {
            best!.Claim();
            Assert.Equal((best.Attempt, best.Attempt, best.Failures), (lease.Attempt, (int)lease.Token, lease.FailureCount));
            leases.Add(lease);
        }

        return best;
    }

    private static async Task<ModelJob> OwnAsync(World world, StepKind kind, ModelJob job)
    {
        switch (kind)
        {
            case StepKind.Expire:
                job.IsExpired = job.IsLive;
                await world.ExpireAsync(job.Id);
                break;
            case StepKind.MakeDue:
                job.IsDelayed = false;
                await world.MakeDueAsync(job.Id);
                break;
            default:
                var answer = kind switch
                {
                    StepKind.Cancel => job.Cancel(),
                    StepKind.Pause => job.Pause(),
                    _ => job.Resume(),
                };
                await AnswersAsync(answer, () => world.OwnAsync(kind, job.Id), kind);
                break;
        }

        return job;
    }

    private static async Task AnswersAsync(Answer expected, Func<Task> write, StepKind kind)
    {
        var failure = await Record.ExceptionAsync(write);
        var answer = failure switch
        {
            null => Answer.Done,
            LeaseLostException => Answer.LeaseLost,
            InvalidTransitionException => Answer.InvalidMove,
            _ => throw new InvalidOperationException($"{kind} failed.", failure),
        };
        Assert.True(expected == answer, $"{kind} was answered with {answer} and should be with {expected}.");
    }

    private static async Task CompareAsync(TestService service, ModelJob model, Step? step)
    {
        var row = await service.ReadAsync(model.Id);
        var expected = (model.Status, model.Attempt, model.Recoveries, model.Failures, model.Events, model.PauseAsked, string.Join(' ', model.History));
        var actual = (row.Status, row.Attempt, row.RecoveryCount, row.FailureCount, row.LastEventSequence, row.PauseRequestedAt is not null,
            string.Join(' ', row.History.OrderBy(move => move.Ordinal).Select(move => move.Status)));
        Assert.True(expected == actual, $"After {step?.ToString() ?? "the whole history"} the job should be {expected} and is {actual}.");
    }
}

public sealed class SequentialHistoryOnPostgresTests() : SequentialHistoryTests(ServiceProfile.Production, 40);

public sealed class SequentialHistoryOnSqliteTests() : SequentialHistoryTests(ServiceProfile.Embedded, 8);
