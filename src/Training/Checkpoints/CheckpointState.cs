namespace TrainingService.Training.Checkpoints;

/// <summary>Where a run stands after a step, but for its tensors.</summary>
/// <remarks>
/// The data position, the learning rate and the random numbers of a step are functions of the step and the spec, so the step says them all;
/// epoch and batch stand here for the reader.
/// </remarks>
public sealed record CheckpointState
{
    /// <summary>Optimizer steps taken.</summary>
    public required int Step { get; init; }

    /// <summary>Epoch of the next step, from 0.</summary>
    public int Epoch { get; init; }

    /// <summary>Batch of that epoch at which the next step begins, from 0.</summary>
    public int Batch { get; init; }

    /// <summary>Tokens so far, padding left out.</summary>
    public long TokensSeen { get; init; }

    /// <summary>Of those, the ones that carried loss.</summary>
    public long TrainedTokens { get; init; }

    /// <summary>Training loss of the last step; null before the first.</summary>
    public double? Loss { get; init; }

    /// <summary>Lowest evaluation loss so far, and its step.</summary>
    public double? BestLoss { get; init; }

    public int? BestStep { get; init; }

    /// <summary>Evaluations since <see cref="BestStep"/> without a lower loss.</summary>
    public int EvaluationsWithoutGain { get; init; }

    /// <summary>Step of the last evaluation; null when there was none.</summary>
    public int? EvaluatedAt { get; init; }

    /// <summary>The last evaluation, and the one before training.</summary>
    public Evaluation? LastEvaluation { get; init; }

    public Evaluation? FirstEvaluation { get; init; }

    /// <summary>Whether early stopping has ended the run at this step.</summary>
    public bool Ended { get; init; }

    /// <summary>Whether a stop came between the step and what follows on it (evaluation, spectra, a scheduled checkpoint), which is then done first.</summary>
    public bool Unfinished { get; init; }

    /// <summary>Whether it was saved for a stop and not by the schedule; it goes when there is a newer one, and so leaves no trace in the result.</summary>
    public bool Passing { get; init; }

    /// <summary>Identifies the run's spec and rows: a checkpoint is of no use to another run.</summary>
    public string Run { get; init; } = "";
}
