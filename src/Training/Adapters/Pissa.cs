using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Numerics;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>LoRA that starts at the principal part of W: the factors hold its largest singular values, the frozen weight the rest.</summary>
/// <remarks>Meng et al. 2024, arXiv:2404.02948, eq. 2 to 4. W = U·S·Vᵀ; B = U_r·√(S_r/s), A = √(S_r/s)·V_rᵀ.</remarks>
[Method(
    "PiSSA",
    "LoRA whose factors start as the largest singular values of the frozen weight, which keeps the remainder.",
    "LoRA's tasks when it should learn faster at equal rank; use a lower learning rate than for LoRA.",
    Paper = "Meng et al. 2024, PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models",
    Arxiv = "2404.02948",
    Parameters = "r·(in + out) per layer")]
public sealed record PissaConfig : ResidualConfig
{
    [Description("Power iterations of a randomized SVD, faster for large layers and a little less exact; null: an exact SVD."), Range(1, 64)]
    public int? Iterations { get; init; }

    [Description("Passes over a quantised base, in which codes and factors are fitted in turn and the best are kept; 1: the codes of the remainder. Without quantization: no meaning."), Range(1, 100), TrainingOnly]
    public int QuantizationIterations { get; init; } = 5;

    /// <inheritdoc/>
    /// <remarks>QPiSSA: the codes are those of the remainder, made from the weights in the file.</remarks>
    internal override string? RefusesQuantization => null;

    internal override bool MakesQuantizedBase => true;

    internal override AdaptedLinear Wrap(LayerParts parts) =>
        new PissaLinear(parts, Select(parts.Shape).Scale, Dropout, Iterations, QuantizationIterations);
}

internal sealed class PissaLinear(LayerParts parts, double scale, double dropout, int? iterations, int passes) : ResidualLinear(parts, scale, dropout)
{
    /// <inheritdoc/>
    /// <remarks>The authors' <c>pissa_quant</c>. The last factors are the part that the codes are made without, so they are saved as over plain weights.</remarks>
    protected override ResidualStart Begin(AdapterStart start)
    {
        if (Quantization is not { } quantization)
        {
            return base.Begin(start);
        }

        var (b, a, _) = QuantizedSplit.FactorsFirst(
            OriginalWeight(), rest => QuantizedSplit.RoundTrip(quantization, rest, Shape.Name), matrix => Start(matrix, start, scale: 1), passes);
        var root = Math.Sqrt(Scale);
        return new(b / root, a / root, b / root, a / root);
    }

    protected override (Tensor B, Tensor A) Start(Tensor weight, AdapterStart start) => Start(weight, start, Scale);

    private (Tensor B, Tensor A) Start(Tensor weight, AdapterStart start, double scale)
    {
        var (left, values, right) = iterations is { } power
            ? SingularVectors.Randomized(weight, A.shape[0], power, start.Random)
            : SingularVectors.Largest(weight, A.shape[0]);
        var root = values.div(scale).sqrt();
        return (left * root, root.unsqueeze(1) * right);
    }
}
