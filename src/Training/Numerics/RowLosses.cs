using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Losses whose gradient is known but for a factor each, as a node of the graph: the backward pass multiplies.</summary>
internal sealed class RowLosses : autograd.SingleTensorFunction<RowLosses>
{
    private const string Key = "known";

    public override string Name => nameof(RowLosses);

    /// <param name="hidden">[N, D].</param>
    /// <param name="weight">[V, D].</param>
    /// <returns>A tensor in the caller's dispose scope.</returns>
    public static Tensor Of(Known known, Tensor hidden, Tensor weight)
    {
        // The scope takes what the base class allocates for gradients that never come; it is not asked to use it.
        using var scope = NewDisposeScope();
        known.Hidden?.DetachFromDisposeScope();
        known.Weight?.DetachFromDisposeScope();
        return apply(known, hidden, weight).MoveToOuterDisposeScope();
    }

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var known = (Known)vars[0];
        ctx.save_data(Key, known);
        ctx.set_materialize_grads(false);
        if (known.LateWeight is not null)
        {
            ctx.save_for_backward([(Tensor)vars[1], (Tensor)vars[2], known.Targets!]);
        }

        return known.Losses;
    }

    public override List<Tensor?> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var known = (Known)ctx.get_data(Key);
        return known.Pass.Compute([grad_output], count: 3, () =>
        {
            known.Spend();
            var factors = grad_output;   // a scalar, or [N]
            known.Hidden?.mul_(factors.unsqueeze(-1));
            known.Weight?.mul_(factors);
            var weight = known.Weight;
            if (known.LateWeight is { } late)
            {
                var saved = ctx.get_saved_variables();
                weight = late(saved[0], saved[1], saved[2], factors);
            }

            return [null, known.Hidden, weight];
        });
    }

    /// <summary>What the forward pass made. The gradients are this object's until the backward pass, which happens once and overwrites them.</summary>
    /// <param name="Losses">The value: [N], or their sum, float32.</param>
    /// <param name="Hidden">Gradient of each row's loss to the row, [N, D]; null: not needed.</param>
    /// <param name="Weight">Gradient of the sum of the losses to W, [V, D]; null: not needed, or not known.</param>
    internal sealed record Known(Tensor Losses, Tensor? Hidden, Tensor? Weight, BackwardPass Pass)
    {
        public Tensor? Targets { get; init; }

        /// <summary>Makes W's gradient of hidden, W, targets and the rows' factors, when these are known; null: not needed.</summary>
        public Func<Tensor, Tensor, Tensor, Tensor, Tensor>? LateWeight { get; init; }

        private bool _spent;

        public void Spend()
        {
            if (_spent)
            {
                throw new InvalidOperationException("The loss was back-propagated before, which overwrote its gradient.");
            }

            _spent = true;
        }
    }
}
