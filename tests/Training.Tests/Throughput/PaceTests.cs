using TrainingService.Training.Throughput;

namespace TrainingService.Training.Tests.Throughput;

public sealed class PaceTests
{
    /// <summary>100 operations in 2 s are 50 a second, so 400 take 8 s. Of the 30 s of the old run 10 · 2 were steps; 10 remain around them.</summary>
    [Fact]
    public void A_step_takes_its_operations_over_the_rate_of_a_finished_run()
    {
        var cost = new Pace([Past(100, 2, steps: 10, seconds: 30)]).Timed(Cost(400, steps: 5));

        Assert.Equal((8, 50), (cost.SecondsPerStep, cost.Seconds));
    }

    /// <summary>Rates 1, 100, 100, 100 at sizes 1, 900, 1000, 1100: the three nearest to 1000 decide.</summary>
    [Fact]
    public void Runs_of_another_size_do_not_count_while_there_are_nearer_ones() => Assert.Equal(
        10, new Pace([Past(1, 1), Past(900, 9), Past(1000, 10), Past(1100, 11)]).Timed(Cost(1000)).SecondsPerStep!.Value, 9);

    /// <summary>Rates 100, 100 and 1: the median is 100.</summary>
    [Fact]
    public void One_run_that_shared_its_machine_changes_nothing() => Assert.Equal(
        10, new Pace([Past(1000, 1000), Past(1000, 10), Past(1000, 10)]).Timed(Cost(1000)).SecondsPerStep);

    [Fact]
    public void Another_format_or_device_says_nothing()
    {
        var pace = new Pace(
        [
            new(Cost(100) with { SecondsPerStep = 1, Precision = Precision.Bfloat16 }, 10), new(Cost(100) with { SecondsPerStep = 1, Device = "cuda" }, 10),
        ]);

        Assert.Equal((null, null), (pace.Timed(Cost(100)).SecondsPerStep, pace.Timed(Cost(100)).Seconds));
    }

    [Fact]
    public void Without_a_number_of_steps_the_whole_time_is_open()
    {
        var cost = new Pace([Past(100, 2)]).Timed(Cost(100) with { Steps = null });

        Assert.Equal((2, null), (cost.SecondsPerStep, cost.Seconds));
    }

    [Fact]
    public void A_cost_is_stored_and_read_whole()
    {
        var cost = Cost(100) with { SecondsPerStep = 0.5 };

        Assert.Equal(cost, Pace.Read(Pace.Write(cost)));
        Assert.Contains("\"operations_per_step\":100", Pace.Write(cost), StringComparison.Ordinal);
    }

    private static RunCost Cost(double operations, int steps = 10) => new("cpu", Precision.Float32, 1, 1, steps, operations, null, null);

    private static PastRun Past(double operations, double secondsPerStep, int steps = 10, double seconds = 100) =>
        new(Cost(operations, steps) with { SecondsPerStep = secondsPerStep }, seconds);
}
