using TrainingService.Training.Data;

namespace TrainingService.Training;

/// <summary>Which batches each optimizer step sees: a function of the step alone.</summary>
/// <remarks>A step never spans two epochs, so the last step of an epoch may have fewer batches than the others.</remarks>
public sealed class StepPlan
{
    private readonly BatchPlan _batches;
    private readonly int _accumulation;
    private (int Number, IReadOnlyList<PlannedBatch> Batches)? _epoch;

    public StepPlan(BatchPlan batches, ScheduleConfig schedule)
    {
        _batches = batches;
        _accumulation = schedule.GradientAccumulationSteps;
        StepsPerEpoch = (batches.BatchesPerEpoch + _accumulation - 1) / _accumulation;
        TotalSteps = schedule.MaxSteps ?? (int)Math.Max(1, Math.Ceiling(schedule.Epochs * StepsPerEpoch - 1e-9));
    }

    public int StepsPerEpoch { get; }

    /// <summary>Steps of the run: <c>max_steps</c>, else the epochs, a part of one rounded up to a whole step.</summary>
    public int TotalSteps { get; }

    /// <summary>Where the step after <paramref name="stepsTaken"/> steps begins.</summary>
    public (int Epoch, int Batch) Position(int stepsTaken) => (stepsTaken / StepsPerEpoch, stepsTaken % StepsPerEpoch * _accumulation);

    /// <summary>Whether an epoch is complete after this many steps.</summary>
    public bool EndsEpoch(int stepsTaken) => stepsTaken % StepsPerEpoch == 0;

    /// <summary>The batches of one step, which examples they hold, and their tokens, padding left out.</summary>
    /// <param name="stepsTaken">Steps before this one.</param>
    public (IReadOnlyList<Batch> Batches, IReadOnlyList<PlannedBatch> Planned, long Tokens) BatchesOf(int stepsTaken)
    {
        var (epoch, first) = Position(stepsTaken);
        if (_epoch?.Number != epoch)
        {
            _epoch = (epoch, _batches.ForEpoch(epoch));
        }

        var planned = _epoch!.Value.Batches.Skip(first).Take(_accumulation).ToArray();
        return ([.. planned.Select(_batches.Collate)], planned, planned.Sum(batch => (long)_batches.TokensOf(batch)));
    }
}
