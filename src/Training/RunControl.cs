namespace TrainingService.Training;

/// <summary>Carries the wish to stop from another thread to a run. A cancellation (nothing is kept) goes through the token instead.</summary>
public sealed class RunControl
{
    private volatile bool _stopRequested;

    /// <summary>Whether the run should save a checkpoint after the step it is in, and end.</summary>
    public bool StopRequested => _stopRequested;

    /// <summary>Asks for a checkpoint and the end of the run.</summary>
    public void RequestCheckpointAndStop() => _stopRequested = true;
}

/// <summary>A run ended because it was asked to, with a checkpoint from which the same command goes on.</summary>
/// <param name="step">Steps that the checkpoint holds; zero: none was taken yet and nothing was saved.</param>
public sealed class RunStoppedException(int step) : Exception($"The run stopped after step {step} as asked; its checkpoint is saved.")
{
    public int Step { get; } = step;
}
