using TrainingService.Training.Data;

namespace TrainingService.Training;

/// <summary>What one optimizer step sees.</summary>
/// <param name="Planned">Which examples the batches hold.</param>
/// <param name="Tokens">Of all batches, padding left out.</param>
public sealed record StepBatches(IReadOnlyList<Batch> Batches, IReadOnlyList<PlannedBatch> Planned, long Tokens);

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

    /// <summary>The batches of one step. Not for two threads at a time.</summary>
    /// <param name="stepsTaken">Steps before this one.</param>
    public StepBatches BatchesOf(int stepsTaken)
    {
        var (epoch, first) = Position(stepsTaken);
        if (_epoch?.Number != epoch)
        {
            _epoch = (epoch, _batches.ForEpoch(epoch));
        }

        var all = _epoch!.Value.Batches;
        var planned = new PlannedBatch[Math.Min(_accumulation, all.Count - first)];
        for (var i = 0; i < planned.Length; i++)
        {
            planned[i] = all[first + i];
        }

        return new([.. planned.Select(_batches.Collate)], planned, planned.Sum(batch => (long)_batches.TokensOf(batch)));
    }
}
