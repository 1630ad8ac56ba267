using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Adam's running scale from one number per row and one per column of a matrix.</summary>
/// <remarks>
/// Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 and 5, as <c>torch.optim.Adafactor</c> computes them: without a first moment, ε₁ as
/// a lower bound instead of an addend, and the learning rate as upper bound of the relative step.
/// </remarks>
[Method(
    "Adafactor",
    "AdamW's running scale, factored: one number per row and one per column instead of one per weight, and no momentum.",
    "Full fine-tuning where AdamW's state does not fit: it keeps next to none. The rate is relative to the size of the weights.",
    Paper = "Shazeer and Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    Arxiv = "1804.04235")]
public sealed record AdafactorConfig : OptimizerConfig
{
    public AdafactorConfig() => LearningRate = 1e-2;   // the authors' bound of the relative step

    [Description("τ: after step t the second moment keeps the share 1 - t^τ of its past."), Range(-1, 0)]
    public double Beta2Decay { get; init; } = -0.8;

    [Description("ε₁: lower bound of the root of the second moment; null: that of float32, 1.19e-7."), Range(0, 1)]
    public double? Eps1 { get; init; }

    [Description("ε₂: a tensor whose root mean square is below counts as one of this size."), Range(0, 1)]
    public double Eps2 { get; init; } = 1e-3;

    [Description("d: an update whose root mean square is above is scaled down to it."), Range(1, 1e6)]
    public double ClipThreshold { get; init; } = 1;

    [Description("Multiply the step by the root mean square of the tensor. Set it to false for LoRA, whose B starts at zero and would hardly move.")]
    public bool ScaleParameter { get; init; } = true;

    [Description("At step t the rate is at most 1/√t.")]
    public bool RelativeStep { get; init; } = true;

    public override long StateBytes(IReadOnlyList<FlatGroup> groups) =>
        groups.Sum(group => group.Members.Count * sizeof(float) * (Adafactor.IsFactored(group) ? group.Size / group.Shape[^1] + group.Size / group.Shape[^2] : group.Size));

    public override Optimizer Create(FlatParameters parameters) => new Adafactor(
        parameters, Beta2Decay, Eps1 ?? Adafactor.Float32Eps, Eps2, ClipThreshold, ScaleParameter, RelativeStep, WeightDecay, LoraPlusRatio);
}

/// <summary>The update of <c>torch.optim.Adafactor</c>, for all tensors of one shape at once, without reading from the device.</summary>
public sealed class Adafactor : Optimizer
{
    /// <summary>Distance from 1 to the next float32.</summary>
    internal const double Float32Eps = 1.1920928955078125e-7;

    private readonly double _beta2Decay;
    private readonly double _eps1;
    private readonly double _eps2;
    private readonly double _clipThreshold;
    private readonly bool _scaleParameter;
    private readonly bool _relativeStep;
    private readonly double _weightDecay;
    private readonly (Tensor Rows, Tensor? Columns)[] _variances;

    public Adafactor(
        FlatParameters parameters, double beta2Decay, double eps1, double eps2, double clipThreshold, bool scaleParameter, bool relativeStep,
        double weightDecay, double? loraPlusRatio = null)
        : base(parameters, loraPlusRatio, kindOf: group => group)
    {
        (_beta2Decay, _eps1, _eps2, _clipThreshold) = (beta2Decay, eps1, eps2, clipThreshold);
        (_scaleParameter, _relativeStep, _weightDecay) = (scaleParameter, relativeStep, weightDecay);
        _variances = [.. Stretches.Select(VariancesOf)];
    }

    /// <summary>Whether the second moment is kept by rows and columns.</summary>
    internal static bool IsFactored(FlatGroup group) => group.Shape.Count > 1;

    internal override void Update(Stretch stretch, double learningRate) =>
        stretch.ForEachBatch((first, count, values, gradients) => Update(stretch, learningRate, first, count, values, gradients));

    /// <param name="values">[count, shape…], as are the gradients.</param>
    private void Update(Stretch stretch, double learningRate, int first, int count, Tensor values, Tensor gradients)
    {
        var (rows, columns) = _variances[stretch.Index];
        long[] one = [count, .. Enumerable.Repeat(1L, values.shape.Length - 1)];   // a number per tensor
        var size = stretch.Groups[0].Size;
        var step = _relativeStep ? Math.Min(learningRate, 1 / Math.Sqrt(Steps)) : learningRate;
        var steps = _scaleParameter
            ? Norms(values, one).div_(Math.Sqrt(size)).clamp_min_(_eps2).mul_(step)
            : full(one, step, dtype: ScalarType.Float32, device: values.device);
        if (stretch.Decays && _weightDecay != 0)
        {
            values.mul_(1 - learningRate * _weightDecay);
        }

        var weight = Math.Pow(Steps, _beta2Decay);
        var row = rows.narrow(0, first, count);
        Tensor variance;
        if (columns is null)
        {
            variance = row.mul_(1 - weight).addcmul_(gradients, gradients, weight).clone();
        }
        else
        {
            var column = columns.narrow(0, first, count);
            Average(row, gradients, -1, weight);
            Average(column, gradients, -2, weight);
            variance = row.matmul(column).div_(row.mean([-2], keepdim: true).clamp_min_(_eps1));
        }

        var update = variance.clamp_min_(_eps1 * _eps1).rsqrt_().mul_(gradients);
        var excess = Norms(update, one).div_(Math.Sqrt(size) * _clipThreshold).clamp_min_(1);
        values.sub_(update.mul_(steps.div_(excess)));
    }

    private static Tensor Norms(Tensor tensors, long[] one) => tensors.flatten(1).norm(1, false, 2).view(one);

    /// <summary>Moves an average of squares along a dimension towards that of <paramref name="gradients"/>.</summary>
    private static void Average(Tensor average, Tensor gradients, int dimension, double weight)
    {
        var squares = linalg.vector_norm(gradients, 2, [dimension], keepdim: true).pow_(2).div_(gradients.shape[^-dimension]);
        average.lerp_(squares, weight);
    }

    private (Tensor Rows, Tensor? Columns) VariancesOf(Stretch stretch)
    {
        var group = stretch.Groups[0];
        long count = group.Members.Count;
        return IsFactored(group)
            ? (Remember("row_var", stretch, [count, .. group.Shape.SkipLast(1), 1]),
                Remember("col_var", stretch, [count, .. group.Shape.SkipLast(2), 1, group.Shape[^1]]))
            : (Remember("variance", stretch, [count, .. group.Shape]), null);
    }
}
