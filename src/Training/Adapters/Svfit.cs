using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>The largest singular values of W train, and nothing else: W' = U·diag(σ)·Vᵀ + the rest of W.</summary>
/// <remarks>Sun et al. 2024, arXiv:2409.05926. No code of the authors is known; with as many values as W has it is the training of its whole spectrum.</remarks>
[Method(
    "SVFit",
    "The largest singular values of each frozen weight train; its singular vectors stay.",
    "The fewest numbers that still reach every layer: thousands for a whole model, saved per task, where a task needs other strengths and no new directions.",
    Paper = "Sun et al. 2024, SVFit: Parameter-Efficient Fine-Tuning of Large Pre-Trained Models Using Singular Values",
    Arxiv = "2409.05926",
    Parameters = "r per layer")]
public sealed record SvfitConfig : DiagonalConfig
{
    internal override string Prefix => "svfit_";

    internal override AdaptedLinear Wrap(LayerParts parts) => new SvfitLinear(parts, Prefix);
}

internal sealed class SvfitLinear(LayerParts parts, string prefix) : DiagonalLinear(parts, prefix, scale: 1)
{
    protected override (Tensor Left, Tensor Values, Tensor Right) Split(Tensor weight) =>
        SingularVectors.Largest(weight, Math.Min(weight.shape[0], weight.shape[1]));
}
