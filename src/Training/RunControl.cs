using System.Diagnostics.CodeAnalysis;

namespace TrainingService.Training;

/// <summary>Carries the wish to stop from another thread to a run. A cancellation (nothing is kept) goes through the token instead.</summary>
[SuppressMessage("Design", "CA1001", Justification = "Without timer and wait handle there is nothing to free, and a late wish must find it alive.")]
public sealed class RunControl
{
    private readonly CancellationTokenSource _stop = new();

    /// <summary>Whether the run should keep what it has reached, and end.</summary>
    public bool StopRequested => _stop.IsCancellationRequested;

    /// <summary>Fires with <see cref="RequestCheckpointAndStop"/>.</summary>
    public CancellationToken Stopping => _stop.Token;

    /// <summary>Asks for a checkpoint and the end of the run.</summary>
    /// <remarks>
    /// What is under way is left at its next safe point, within a batch, a row or a matrix: a half step is thrown away and the state before
    /// it is kept. The same command then goes on to the same bytes.
    /// </remarks>
    public void RequestCheckpointAndStop() => _stop.Cancel();
}

/// <summary>A run ended because it was asked to; from its newest checkpoint the same command goes on.</summary>
/// <param name="step">Steps that the checkpoint holds; zero: none was taken yet and nothing was saved.</param>
public sealed class RunStoppedException(int step) : Exception(
    step == 0 ? "The run stopped before its first step, as asked." : $"The run stopped after step {step} as asked; its checkpoint is saved.")
{
    public int Step { get; } = step;
}
