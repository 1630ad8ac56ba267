using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
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

    internal override AdaptedLinear Wrap(LayerParts parts) => new PissaLinear(parts, Select(parts.Shape).Scale, Dropout, Iterations);
}

internal sealed class PissaLinear(LayerParts parts, double scale, double dropout, int? iterations) : ResidualLinear(parts, scale, dropout)
{
    protected override (Tensor B, Tensor A) Start(Tensor weight, AdapterStart start)
    {
        var (left, values, right) = iterations is { } power
            ? SingularVectors.Randomized(weight, A.shape[0], power, start.Random)
            : SingularVectors.Largest(weight, A.shape[0]);
        var root = values.div(Scale).sqrt();
        return (left * root, root.unsqueeze(1) * right);
    }
}
