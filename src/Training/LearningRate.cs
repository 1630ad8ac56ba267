namespace TrainingService.Training;

/// <summary>The learning rate as a pure function of the step.</summary>
/// <remarks>The same numbers as transformers' <c>get_constant_schedule_with_warmup</c>, <c>get_linear_…</c> and <c>get_cosine_…</c>.</remarks>
public static class LearningRate
{
    /// <summary>Steps over which the rate rises from zero: <c>warmup_steps</c>, else the share <c>warmup_ratio</c>, rounded up.</summary>
    public static int WarmupSteps(ScheduleConfig schedule, int totalSteps) =>
        schedule.WarmupSteps ?? (int)Math.Ceiling(schedule.WarmupRatio * totalSteps);

    /// <summary>Factor, from 0 to 1, by which the configured rate is multiplied.</summary>
    /// <param name="step">Steps already taken: the first update is at 0, and uses a rate of zero when there is a warm-up.</param>
    public static double Factor(LrScheduler scheduler, int step, int warmupSteps, int totalSteps)
    {
        if (step < warmupSteps)
        {
            return step / (double)Math.Max(1, warmupSteps);
        }

        var decaySteps = Math.Max(1, totalSteps - warmupSteps);
        var progress = (step - warmupSteps) / (double)decaySteps;
        return scheduler switch
        {
            LrScheduler.Constant => 1,
            LrScheduler.Linear => Math.Max(0, 1 - progress),
            LrScheduler.Cosine => Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * progress))),
        };
    }
}
