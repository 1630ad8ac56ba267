using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Losses made of the figures of a confusion matrix: 1 less the figure, of a batch whose predictions are nearly 0 or 1.</summary>
/// <remarks>
/// Han, Moniz and Chawla 2024, AnyLoss, arXiv:2405.14745. N is the number of items of the batch, as in the paper; the authors' notebook takes
/// that of the training set for small batches, which shifts three of the four figures. A count of positives or negatives that is 0 is taken as 1
/// where it divides: the counts are whole, so nothing else changes.
/// </remarks>
public static class AnyLoss
{
    /// <summary>Keeps the slope of the root finite at 0.</summary>
    private const double Root = 1e-7;

    /// <summary>A(p) = 1 / (1 + exp(−L·(p − ½))): close to 0 or 1 for most p, and with a slope (equation 5).</summary>
    /// <param name="probabilities">Of the positive class, any shape.</param>
    /// <param name="amplification">L.</param>
    /// <returns>In the caller's dispose scope.</returns>
    public static Tensor Approximate(Tensor probabilities, double amplification) => sigmoid(amplification * (probabilities - 0.5));

    /// <summary>True positives, false negatives, false positives, true negatives; of amplified predictions no whole numbers.</summary>
    /// <param name="predictions">[N].</param>
    /// <param name="labels">[N], 1 or 0, float32.</param>
    /// <returns>Scalars in the caller's dispose scope.</returns>
    public static (Tensor TruePositives, Tensor FalseNegatives, Tensor FalsePositives, Tensor TrueNegatives) Confusion(Tensor predictions, Tensor labels)
    {
        using var scope = NewDisposeScope();
        var right = (labels * predictions).sum();
        var (missed, invented) = (labels.sum() - right, predictions.sum() - right);
        var rest = labels.shape[0] - right - missed - invented;
        return (right.MoveToOuterDisposeScope(), missed.MoveToOuterDisposeScope(), invented.MoveToOuterDisposeScope(), rest.MoveToOuterDisposeScope());
    }

    /// <summary>1 less the figure, for the whole batch.</summary>
    /// <param name="predictions">[N], amplified.</param>
    /// <param name="labels">[N], 1 or 0, float32.</param>
    /// <param name="beta">How much more recall counts than precision in <see cref="ClassificationLoss.FBeta"/>.</param>
    /// <returns>Scalar in the caller's dispose scope.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The loss is not one of a confusion matrix.</exception>
    public static Tensor Loss(ClassificationLoss loss, Tensor predictions, Tensor labels, double beta = 1)
    {
        using var scope = NewDisposeScope();
        var count = labels.shape[0];
        var (tp, fn, fp, tn) = Confusion(predictions, labels);
        var positives = labels.sum();
        var (some, others) = (positives.clamp(min: 1), (count - positives).clamp(min: 1));
        var figure = loss switch
        {
            ClassificationLoss.Accuracy => (tp + tn) / count,
            ClassificationLoss.FBeta => (1 + (beta * beta)) * tp / (((1 + (beta * beta)) * tp) + (beta * beta * fn) + fp).clamp(min: Root),
            ClassificationLoss.GMean => sqrt((tp * tn / (some * others)).clamp(min: 0) + Root),
            ClassificationLoss.BalancedAccuracy => 0.5 * ((tp / some) + (tn / others)),
            ClassificationLoss.CrossEntropy => throw new ArgumentOutOfRangeException(nameof(loss), loss, "Not a loss of a confusion matrix."),
        };
        return (1 - figure).MoveToOuterDisposeScope();
    }
}
