using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Cross-entropy of logits = hidden·Wᵀ that never holds the logits of more than a few rows.</summary>
/// <remarks>
/// <para>The logits of a step are its widest tensor, [N, V], and the plain way holds several of them. But the gradient of a row's loss,
/// (softmax(logits) - target)·W, needs that row alone, and is known up to a factor as soon as the row's logits are. So both are made
/// chunk by chunk in the forward pass, and the backward pass multiplies with the factor.</para>
/// <para>As in the plain way, products have the format of the weights, and exponentials and sums are float32.</para>
/// </remarks>
public static class LinearCrossEntropy
{
    /// <summary>Logits of one chunk, 64 MiB: wide enough that reading W once a chunk costs little.</summary>
    internal const long MostLogits = 1 << 24;

    /// <summary>Sum of -log softmax(hidden·Wᵀ)[target] over all rows, and how many rows have no logit above their target's.</summary>
    /// <param name="hidden">[N, D].</param>
    /// <param name="weight">[V, D], of the same format.</param>
    /// <param name="targets">[N], int64, each below V.</param>
    /// <returns>Float32 scalar with gradient, nats, and int64 scalar without; in the caller's dispose scope.</returns>
    /// <param name="pass">What the loss is back-propagated with.</param>
    /// <param name="mostLogits">How many logits are held at a time; at least a row's.</param>
    public static (Tensor Sum, Tensor Correct) Sum(
        Tensor hidden, Tensor weight, Tensor targets, BackwardPass pass, long mostLogits = MostLogits)
    {
        using var scope = NewDisposeScope();
        var made = InChunks(hidden, weight, targets, mostLogits, Trains(hidden), Trains(weight));
        var sum = RowLosses.Of(new(made.Losses.sum(), made.Hidden, made.Weight, pass), hidden, weight);
        return (sum.MoveToOuterDisposeScope(), made.Correct.MoveToOuterDisposeScope());
    }

    /// <summary>-log softmax(hidden·Wᵀ)[target] of each row, for losses that are not a plain sum. Parameters as of <see cref="Sum"/>.</summary>
    /// <remarks>Where W trains, the backward pass makes the logits a second time: its gradient mixes the rows, whose factors are not known before.</remarks>
    /// <returns>[N], float32 with gradient, nats, in the caller's dispose scope.</returns>
    public static Tensor PerRow(Tensor hidden, Tensor weight, Tensor targets, BackwardPass pass, long mostLogits = MostLogits)
    {
        using var scope = NewDisposeScope();
        var made = InChunks(hidden, weight, targets, mostLogits, Trains(hidden), weightGradient: false);
        return RowLosses.Of(
            new(made.Losses, made.Hidden, Weight: null, pass) { Targets = targets, LateWeight = Trains(weight) ? WeightGradient : null },
            hidden, weight).MoveToOuterDisposeScope();

        Tensor WeightGradient(Tensor hidden, Tensor weight, Tensor targets, Tensor factors) =>
            InChunks(hidden, weight, targets, mostLogits, hiddenGradient: false, weightGradient: true, factors).Weight!;
    }

    private static bool Trains(Tensor tensor) => is_grad_enabled() && tensor.requires_grad;

    /// <param name="factors">[N], float32: what each row's loss counts in W's gradient; null: 1.</param>
    private static Parts InChunks(
        Tensor hidden, Tensor weight, Tensor targets, long mostLogits, bool hiddenGradient, bool weightGradient, Tensor? factors = null)
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        var (rows, vocabulary) = (hidden.shape[0], weight.shape[0]);
        var size = Math.Clamp(mostLogits / vocabulary, 1, Math.Max(1, rows));
        var made = new Parts(
            empty(rows, dtype: ScalarType.Float32, device: hidden.device),
            zeros([], dtype: ScalarType.Int64, device: hidden.device),
            hiddenGradient ? empty_like(hidden) : null,
            weightGradient ? zeros(weight.shape, dtype: ScalarType.Float32, device: weight.device) : null);

        // One buffer for all chunks: an allocation of this size is given back to the system at once, and faulted in again page by page.
        var buffer = empty([size, vocabulary], dtype: hidden.dtype, device: hidden.device);
        for (long start = 0; start < rows; start += size)
        {
            using var chunkScope = NewDisposeScope();
            var count = Math.Min(size, rows - start);
            Tensor Chunk(Tensor all) => all.narrow(0, start, count);
            OneChunk(
                Chunk(hidden), weight, Chunk(targets), buffer.narrow(0, 0, count), factors is null ? null : Chunk(factors),
                made with { Losses = Chunk(made.Losses), Hidden = made.Hidden is null ? null : Chunk(made.Hidden) });
        }

        return new(
            made.Losses.MoveToOuterDisposeScope(), made.Correct.MoveToOuterDisposeScope(),
            made.Hidden?.MoveToOuterDisposeScope(), made.Weight?.MoveToOuterDisposeScope());
    }

    /// <param name="into">Losses and hidden gradients are overwritten, the others added to.</param>
    private static void OneChunk(Tensor hidden, Tensor weight, Tensor targets, Tensor buffer, Tensor? factors, Parts into)
    {
        var column = targets.unsqueeze(1);                                            // [n, 1]
        var logits = buffer.addmm_(hidden, weight.t(), beta: 0, alpha: 1);            // [n, V]
        logits = logits.to_type(ScalarType.Float32);
        var largest = logits.amax([1L], keepdim: true);
        var chosen = logits.gather(1, column);
        into.Correct.add_(chosen.ge(largest).sum());                                  // an argmax would cost as much as all the norms of a step
        var exponentials = logits.sub_(largest).exp_();                               // overwrites the logits
        var total = exponentials.sum([1L], keepdim: true);                            // [n, 1]
        into.Losses.copy_((total.log() + largest - chosen).squeeze(1));
        if (into.Hidden is null && into.Weight is null)
        {
            return;
        }

        // total·(softmax - target): the division is left to the narrow side of each product. The subtraction is not, because it
        // cancels where a target is almost certain, which is no place for the weights' rounding.
        var differences = exponentials.scatter_add_(1, column, -total).to_type(weight.dtype);
        into.Hidden?.copy_(differences.mm(weight).to_type(ScalarType.Float32).div_(total));
        if (into.Weight is { } gradient)
        {
            var shares = hidden.to_type(ScalarType.Float32) * (factors is null ? total.reciprocal() : factors.unsqueeze(1) / total);
            Accumulate(gradient, differences, shares.to_type(weight.dtype));
        }
    }

    /// <summary>Adds leftᵀ·right to a float32 sum: sums of bfloat16 lose what is small beside them.</summary>
    private static void Accumulate(Tensor sum, Tensor left, Tensor right)
    {
        if (left.dtype == ScalarType.Float32)
        {
            sum.addmm_(left.t(), right, beta: 1, alpha: 1);
            return;
        }

        sum.add_(left.t().mm(right));
    }

    /// <summary>What the chunks give.</summary>
    /// <param name="Losses">[N], float32.</param>
    /// <param name="Correct">Scalar, int64.</param>
    /// <param name="Hidden">Gradient of each row's loss to that row, [N, D], in its format; null: not asked for.</param>
    /// <param name="Weight">Gradient of the sum of losses to W, [V, D], float32; null: not asked for.</param>
    private sealed record Parts(Tensor Losses, Tensor Correct, Tensor? Hidden, Tensor? Weight);
}
