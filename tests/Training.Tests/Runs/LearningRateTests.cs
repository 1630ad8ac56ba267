namespace TrainingService.Training.Tests.Runs;

public sealed class LearningRateTests
{
    // transformers: get_*_schedule_with_warmup(num_warmup_steps=4, num_training_steps=20), LambdaLR factors.
    // linear: (20 - s)/16; cosine: 0.5·(1 + cos(π·(s - 4)/16)).
    [Theory]
    [InlineData(LrScheduler.Constant, 0, 0.0)]
    [InlineData(LrScheduler.Constant, 1, 0.25)]
    [InlineData(LrScheduler.Constant, 4, 1.0)]
    [InlineData(LrScheduler.Constant, 19, 1.0)]
    [InlineData(LrScheduler.Linear, 3, 0.75)]
    [InlineData(LrScheduler.Linear, 4, 1.0)]
    [InlineData(LrScheduler.Linear, 8, 0.75)]
    [InlineData(LrScheduler.Linear, 19, 0.0625)]
    [InlineData(LrScheduler.Cosine, 2, 0.5)]
    [InlineData(LrScheduler.Cosine, 4, 1.0)]
    [InlineData(LrScheduler.Cosine, 8, 0.8535533905932737)]
    [InlineData(LrScheduler.Cosine, 12, 0.5)]
    [InlineData(LrScheduler.Cosine, 19, 0.009607359798384785)]
    [InlineData(LrScheduler.Cosine, 20, 0.0)]
    public void The_factor_is_the_one_of_transformers(LrScheduler scheduler, int step, double factor) =>
        Assert.Equal(factor, LearningRate.Factor(scheduler, step, warmupSteps: 4, totalSteps: 20), 12);

    [Theory]
    [InlineData(LrScheduler.Constant)]
    [InlineData(LrScheduler.Linear)]
    [InlineData(LrScheduler.Cosine)]
    public void Without_warm_up_the_first_step_has_the_full_rate(LrScheduler scheduler) =>
        Assert.Equal(1, LearningRate.Factor(scheduler, 0, 0, 10));

    [Theory]
    [InlineData(0.03, null, 100, 3)]
    [InlineData(0.03, null, 101, 4)]
    [InlineData(0.5, 7, 100, 7)]
    [InlineData(0.0, null, 100, 0)]
    public void Warm_up_steps_win_over_the_ratio(double ratio, int? steps, int total, int expected) =>
        Assert.Equal(expected, LearningRate.WarmupSteps(new ScheduleConfig { WarmupRatio = ratio, WarmupSteps = steps }, total));
}
