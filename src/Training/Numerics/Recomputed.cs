using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>A part of a network that keeps its input alone, and is computed a second time when its gradient is wanted.</summary>
/// <remarks>
/// Chen et al. 2016, arXiv:1604.06174, §4. The second computation draws the random numbers of the first one, so values and gradients are
/// those of the plain way to the bit, on a CPU. Gradients of parameters inside are added to where they lie.
/// </remarks>
public sealed class Recomputed : autograd.SingleTensorFunction<Recomputed>
{
    private const string Key = "call";

    public override string Name => nameof(Recomputed);

    /// <param name="body">Of the input and <paramref name="beside"/>, to a result in the caller's dispose scope; called twice, on equal tensors.</param>
    /// <param name="beside">Tensors without gradient.</param>
    /// <param name="pass">What the loss is back-propagated with.</param>
    /// <returns>What <paramref name="body"/> gives, in the caller's dispose scope.</returns>
    public static Tensor Run(Func<Tensor, IReadOnlyList<Tensor>, Tensor> body, Tensor input, IReadOnlyList<Tensor> beside, BackwardPass pass)
    {
        // The scope takes what the base class allocates for gradients that never come; it is not asked to use it.
        using var scope = NewDisposeScope();

        // Parameters inside are not seen by the graph. Something that wants a gradient must enter, even where the input does not.
        var thread = zeros(1, requires_grad: true);
        return apply(new Call(body, beside, pass, input.requires_grad), input, thread).MoveToOuterDisposeScope();
    }

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (call, input) = ((Call)vars[0], (Tensor)vars[1]);
        ctx.set_materialize_grads(false);
        ctx.save_data(Key, call with { Beside = [] });   // what is saved lives as long as the graph, and these belong to a scope
        ctx.save_for_backward([input, RandomDraws.Mark(input.device), .. call.Beside]);
        return call.Body(input, call.Beside);
    }

    public override List<Tensor?> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var call = (Call)ctx.get_data(Key);
        return call.Pass.Compute([grad_output], count: 3, () =>
        {
            var saved = ctx.get_saved_variables();
            var input = saved[0].detach().requires_grad_(call.InputTrains);
            using (RandomDraws.From(saved[1]))
            using (enable_grad())
            {
                // Custom gradients within belong to the pass of this thread, which is another one on a GPU.
                BackwardPass.OfThisThread.Run(call.Body(input, saved[2..]), grad_output);
            }

            return [null, call.InputTrains ? input.grad : null, null];
        });
    }

    private sealed record Call(
        Func<Tensor, IReadOnlyList<Tensor>, Tensor> Body, IReadOnlyList<Tensor> Beside, BackwardPass Pass, bool InputTrains);
}
