namespace TrainingService.Training;

/// <summary>Prepares the batches of the next step on another thread while this one trains.</summary>
/// <remarks>Only the plan's function of the step decides what is in them, so nothing depends on which thread was faster.</remarks>
public sealed class BatchesAhead(StepPlan plan) : IDisposable
{
    private (int StepsTaken, Task<StepBatches> Batches)? _next;

    /// <summary>The batches of a step, as <see cref="StepPlan.BatchesOf"/> gives them. What went wrong in making them is thrown here.</summary>
    /// <param name="stepsTaken">Steps before this one.</param>
    public StepBatches Take(int stepsTaken)
    {
        var batches = _next is { } next && next.StepsTaken == stepsTaken ? next.Batches.GetAwaiter().GetResult() : MakeNow(stepsTaken);
        var following = stepsTaken + 1;
        _next = following < plan.TotalSteps ? (following, Task.Run(() => plan.BatchesOf(following))) : null;
        return batches;
    }

    /// <summary>Waits for what is in work; nobody wants it, nor what went wrong in it.</summary>
    public void Dispose() => Leave();

    private StepBatches MakeNow(int stepsTaken)
    {
        Leave();   // the plan is for one thread at a time
        return plan.BatchesOf(stepsTaken);
    }

    private void Leave()
    {
        if (_next is { } next)
        {
            Task.WhenAny(next.Batches).Wait(CancellationToken.None);
            _next = null;
        }
    }
}
