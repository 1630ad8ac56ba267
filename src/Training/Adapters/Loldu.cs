using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>The first pivots of W's triangular decomposition train: W = P·L·diag(z)·U, with P, L and U frozen.</summary>
/// <remarks>Shi et al. 2024, arXiv:2410.13618, §3; the authors' <c>minloldu/loldu.py</c>. z starts at the pivots, so training starts at the base model.</remarks>
[Method(
    "LoLDU",
    "The diagonal of a lower-diagonal-upper decomposition of each frozen weight trains; the triangles stay.",
    "A few hundred numbers per layer, and a start that takes less time than any decomposition into singular values.",
    Paper = "Shi et al. 2024, LoLDU: Low-Rank Adaptation via Lower-Diag-Upper Decomposition for Parameter-Efficient Fine-Tuning",
    Arxiv = "2410.13618",
    Parameters = "r per layer")]
public sealed record LolduConfig : DiagonalConfig
{
    [Description("Scale α; the change is multiplied by α/r. Null: by one."), Range(1e-3, 1e6)]
    public double? Alpha { get; init; }

    internal override string Prefix => "loldu_";

    internal override AdaptedLinear Wrap(LayerParts parts) => new LolduLinear(parts, Prefix, Alpha / RankOf(parts.Shape) ?? 1);
}

internal sealed class LolduLinear(LayerParts parts, string prefix, double scale) : DiagonalLinear(parts, prefix, scale)
{
    // A row of U is not divided by a pivot below this: it stays as it is, and its pivot becomes one. The product is the same.
    private const double SmallestPivot = 1e-6;

    protected override (Tensor Left, Tensor Values, Tensor Right) Split(Tensor weight)
    {
        var (permutation, lower, upper) = linalg.lu(SingularVectors.Widened(weight));
        var pivots = upper.diagonal();
        var values = where(pivots.abs().ge(SmallestPivot), pivots, ones_like(pivots));
        return (permutation.mm(lower), values, upper / values.unsqueeze(1));
    }
}
