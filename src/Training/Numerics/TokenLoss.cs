using TrainingService.Training.Data;
using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Cross-entropy and accuracy of next-token predictions.</summary>
public static class TokenLoss
{
    /// <summary>Labels moved to the positions that predict them: the logits of position t - 1 predict the label of t.</summary>
    /// <param name="labels">[B, T], row-major, <see cref="Example.Ignored"/> where there is no loss.</param>
    /// <returns>[B, T]; the last position of each row predicts nothing.</returns>
    public static long[] Targets(ReadOnlySpan<long> labels, int length)
    {
        var targets = new long[labels.Length];
        for (var start = 0; start < labels.Length; start += length)
        {
            labels.Slice(start + 1, length - 1).CopyTo(targets.AsSpan(start));
            targets[start + length - 1] = Example.Ignored;
        }

        return targets;
    }

    /// <summary>Sum of -log softmax(logits)[target] over the targets that are not ignored.</summary>
    /// <remarks>A sum and not a mean, so that parts of a step (accumulation) add up to the mean over all its tokens.</remarks>
    /// <param name="logits">[.., V], any floating dtype; the loss is computed in float32.</param>
    /// <param name="targets">[..] int64, as <see cref="Targets"/> gives them.</param>
    /// <returns>Scalar, float32, nats, in the caller's dispose scope.</returns>
    public static Tensor Sum(Tensor logits, Tensor targets)
    {
        using var scope = NewDisposeScope();
        var rows = logits.reshape(-1, logits.shape[^1]).to_type(ScalarType.Float32);
        return nn.functional.cross_entropy(rows, targets.reshape(-1), ignore_index: Example.Ignored, reduction: nn.Reduction.Sum)
            .MoveToOuterDisposeScope();
    }

    /// <summary>Number of targets that have the largest logit; ignored targets count as neither right nor wrong.</summary>
    /// <param name="logits">[.., V].</param>
    /// <param name="targets">[..] int64.</param>
    /// <returns>Scalar int64, without gradient, in the caller's dispose scope.</returns>
    public static Tensor Correct(Tensor logits, Tensor targets)
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        return logits.detach().argmax(-1).eq(targets).sum().MoveToOuterDisposeScope();   // an ignored target is no token id
    }
}
