using System.Globalization;
using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Jobs;
using TrainingService.EndToEnd.Tests.Infrastructure;
using TrainingService.Infrastructure;

namespace TrainingService.EndToEnd.Tests.StateMachine;

/// <summary>
/// Thousands of steps of eight actors at once. <c>TRAINING_STORM_STEPS</c> sets the steps of each actor, <c>TRAINING_STORM_SEED</c> repeats what
/// the actors want; who is faster is the machine's choice.
/// </summary>
public abstract class ConcurrentHistoryTests(ServiceProfile profile, int steps)
{
    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task No_interleaving_makes_an_illegal_state_loses_a_job_or_runs_one_twice()
    {
        var seed = Number("TRAINING_STORM_SEED") ?? Random.Shared.Next();
        TestContext.Current.SendDiagnosticMessage($"TRAINING_STORM_SEED={seed}");
        await using var service = await TestService.CreateAsync(profile);
        var storm = new Storm(service, seed, Number("TRAINING_STORM_STEPS") ?? steps);
        try
        {
            await storm.RunAsync();
            await Invariants.CheckAllAsync(service);
            await storm.DrainAsync();
            await Invariants.CheckAllAsync(service);
            await CheckClaimsAndEventsAsync(service, storm);
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"TRAINING_STORM_SEED={seed} found: {e.Message}", e);
        }
    }

    private static async Task CheckClaimsAndEventsAsync(TestService service, Storm storm)
    {
        Assert.True(storm.Refused > 0, "No write was refused: the actors did not get in each other's way.");
        Assert.Equal(storm.Claims.Count, storm.Claims.Distinct().Count());
        await using var db = await service.OpenAsync();
        var jobs = await db.Jobs.AsNoTracking().ToListAsync(Cancel);
        Assert.Equal(storm.Jobs.Order(), jobs.Select(job => job.Id).Order());
        Assert.All(jobs, job => Assert.Equal(job.Attempt, storm.Claims.Count(claim => claim.Job == job.Id)));
        var stored = await db.Events.Where(e => e.Type == JobEvent.MetricsType).Select(e => e.Message).ToListAsync(Cancel);
        Assert.Equal(storm.Reported.Order(StringComparer.Ordinal), stored.Order(StringComparer.Ordinal));
    }

    private static int? Number(string variable) =>
        Environment.GetEnvironmentVariable(variable) is { Length: > 0 } value ? int.Parse(value, CultureInfo.InvariantCulture) : null;
}

public sealed class ConcurrentHistoryOnPostgresTests() : ConcurrentHistoryTests(ServiceProfile.Production, 300)
{
    [Fact]
    public async Task A_claim_passes_over_a_job_that_another_one_is_taking_and_does_not_wait()
    {
        var cancel = TestContext.Current.CancellationToken;
        await using var service = await TestService.CreateAsync(ServiceProfile.Production);
        var world = new World(service);
        var (first, second) = (await world.SubmitAsync(0, 0, 0), await world.SubmitAsync(0, 0, 1));
        await using var db = await service.OpenAsync();
        await using var claiming = await db.Database.BeginTransactionAsync(cancel);
        await db.Database.ExecuteSqlRawAsync(db.LockJobSql!, [first], cancel);

        var lease = await world.ClaimAsync("other").WaitAsync(TimeSpan.FromSeconds(20), cancel);

        Assert.Equal(second, lease?.JobId);
        await claiming.RollbackAsync(cancel);
        Assert.Equal(first, (await world.ClaimAsync("next"))?.JobId);
    }
}

public sealed class ConcurrentHistoryOnSqliteTests() : ConcurrentHistoryTests(ServiceProfile.Embedded, 30);
