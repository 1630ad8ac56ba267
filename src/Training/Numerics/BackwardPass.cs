using System.Runtime.ExceptionServices;
using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Runs a backward pass that has custom gradients in it.</summary>
/// <remarks>
/// <para>Native code calls custom gradients, and an exception must not cross it: the process would end without a word. The first one is kept
/// here, the rest of the pass runs on with gradients that count as zero, and <see cref="Run"/> throws.</para>
/// <para>Native code may call on a thread of its own, where no dispose scope is open, and what a custom gradient returns must outlive its
/// call. So this object owns it, until the next such call shows that it was taken over.</para>
/// </remarks>
public sealed class BackwardPass
{
    [ThreadStatic]
    private static BackwardPass? _ofThisThread;

    private readonly List<Tensor> _returned = [];
    private ExceptionDispatchInfo? _fault;

    /// <summary>The pass of the thread that computes the loss: a custom gradient asks for it in its forward function.</summary>
    public static BackwardPass OfThisThread => _ofThisThread ??= new();

    /// <summary>Back-propagates a loss.</summary>
    /// <exception cref="Exception">What a custom gradient threw; all gradients then are of no use.</exception>
    /// <param name="gradient">That of the loss; null where the loss is a scalar whose gradient is 1.</param>
    public void Run(Tensor loss, Tensor? gradient = null)
    {
        try
        {
            loss.backward(grad_tensors: gradient is null ? null : [gradient]);
        }
        finally
        {
            Release();
        }

        var fault = _fault;
        _fault = null;
        fault?.Throw();
    }

    /// <summary>Computes gradients on behalf of native code.</summary>
    /// <param name="incoming">
    /// Handles made for this call alone; they are disposed. One that is invalid is a gradient of zero, which a custom function must ask for
    /// (<c>set_materialize_grads(false)</c>): TorchSharp would make the zeros from an output that is disposed by then.
    /// </param>
    /// <param name="count">How many gradients there are, those that are null included.</param>
    /// <param name="gradients">Runs in a dispose scope of its own. What it returns may belong to that scope or to none.</param>
    internal List<Tensor?> Compute(IReadOnlyList<Tensor> incoming, int count, Func<List<Tensor?>> gradients)
    {
        List<Tensor?> made = [.. new Tensor?[count]];
        try
        {
            if (_fault is null && incoming.Any(gradient => !gradient.IsInvalid))
            {
                using var scope = NewDisposeScope();
                made = gradients();
                foreach (var gradient in made)
                {
                    gradient?.DetachFromDisposeScope();
                }
            }
        }
        catch (Exception e)
        {
            _fault = ExceptionDispatchInfo.Capture(e);
        }

        Release();
        _returned.AddRange(made.OfType<Tensor>());
        foreach (var handle in incoming)
        {
            handle.Dispose();
        }

        return made;
    }

    private void Release()
    {
        _returned.ForEach(gradient => gradient.Dispose());
        _returned.Clear();
    }
}
