using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>A small matrix trains between the leading singular vectors of W: ΔW = s·U_r·R·diag(S_r)·V_rᵀ.</summary>
/// <remarks>
/// Bałazy et al. 2024, arXiv:2405.17604, §3; the authors' <c>utils/initialization_utils.py</c>. The singular values are on the side of the inputs.
/// R starts at noise of 1e-5, as theirs does: training starts near the base model, and not at it.
/// </remarks>
[Method(
    "LoRA-XS",
    "A trained r x r matrix between the frozen leading singular vectors of each weight.",
    "Many adapters of kilobytes: r² numbers per layer whatever the layer's size. Use ten times LoRA's learning rate.",
    Paper = "Bałazy et al. 2024, LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters",
    Arxiv = "2405.17604",
    Parameters = "r² per layer")]
public sealed record LoraXsConfig : CoreConfig
{
    [Description("Scale α; the update is multiplied by α/r."), Range(1e-3, 1e6)]
    public double Alpha { get; init; } = 32;

    [Description("Power iterations of a randomized SVD, faster for large layers and a little less exact; null: an exact SVD."), Range(1, 64)]
    public int? Iterations { get; init; }

    internal override AdaptedLinear Wrap(LayerParts parts) => new LoraXsLinear(parts, Alpha / Rank, Dropout, Iterations);
}

internal sealed class LoraXsLinear(LayerParts parts, double scale, double dropout, int? iterations) : CoreLinear(parts, scale, dropout)
{
    private const double Noise = 1e-5;

    public override void Initialise(AdapterStart start)
    {
        using var scope = NewDisposeScope();
        var rank = R.shape[0];
        var (left, values, right) = iterations is { } power
            ? SingularVectors.Randomized(FrozenWeight(), rank, power, start.Random)
            : SingularVectors.Largest(FrozenWeight(), rank);
        A.copy_(values.unsqueeze(1) * right);
        B.copy_(left);
        R.copy_(randn(rank, rank, dtype: ScalarType.Float32, device: CPU, generator: start.Random).mul(Noise));
    }
}
