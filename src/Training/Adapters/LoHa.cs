using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Low-rank Hadamard product: ΔW = s·(B₁·A₁) ⊙ (B₂·A₂), of a rank up to r².</summary>
/// <remarks>
/// Hyeon-Woo et al. 2021 (FedPara), arXiv:2108.06098, eq. 2; LyCORIS, arXiv:2309.14859, §3.2; PEFT 0.20.0, <c>tuners/loha/layer.py</c>. A₂ starts at
/// zero, so training starts at the base model.
/// </remarks>
[Method(
    "LoHa",
    "The elementwise product of two low-rank products per layer.",
    "A rank of up to r² for the trained numbers of two LoRA adapters of rank r.",
    Paper = "Yeh et al. 2024, Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation",
    Arxiv = "2309.14859",
    Parameters = "2·r·(in + out) per layer")]
[PeftType("LOHA")]
[PeftConstant("alpha_pattern", "{}")]
[PeftConstant("rank_pattern", "{}")]
[PeftConstant("use_effective_conv2d", "false")]
public sealed record LoHaConfig : LayerAdapterConfig
{
    /// <summary>Keys of B₁ and B₂, [out, R].</summary>
    internal const string B1 = "hada_w1_a", B2 = "hada_w2_a";

    /// <summary>Keys of A₁ and A₂, [R, in].</summary>
    internal const string A1 = "hada_w1_b", A2 = "hada_w2_b";

    [Description("Rank r of each of the two products."), Range(1, 65_536), PeftName("r")]
    public int Rank { get; init; } = 8;

    [Description("Scale α; the update is multiplied by α/r."), Range(1e-3, 1e6)]
    public double Alpha { get; init; } = 8;

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
        [new(B1, [layer.Out, Rank]), new(A1, [Rank, layer.In]), new(B2, [layer.Out, Rank]), new(A2, [Rank, layer.In])];

    internal override AdaptedLinear Wrap(LayerParts parts) => new LoHaLinear(parts, Alpha / Rank);

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) => RankChecks.Of(Rank, layers);

    internal override void ToPeft(JsonObject fields) => LycorisFields.ToPeft(fields);

    internal override void FromPeft(JsonObject fields, JsonObject members) => LycorisFields.FromPeft(fields);
}

internal sealed class LoHaLinear(LayerParts parts, double scale) : AdaptedLinear(parts)
{
    /// <inheritdoc/>
    /// <remarks>The elementwise product of two products is the product of their rowwise and columnwise Kronecker products, of rank r².</remarks>
    public override LowRankFactors? Factors
    {
        get
        {
            if (!IsThin)
            {
                return null;
            }

            using var scope = NewDisposeScope();
            var (left, right) = Thin();
            return new(left.MoveToOuterDisposeScope(), right.MoveToOuterDisposeScope(), scale);
        }
    }

    /// <summary>Whether the factors of rank r² have fewer numbers than ΔW.</summary>
    private bool IsThin => Own(LoHaConfig.A1).shape[0] is var rank && rank * rank * (Shape.In + Shape.Out) < Shape.In * Shape.Out;

    public override void Initialise(AdapterStart start)
    {
        foreach (var name in (string[])[LoHaConfig.B1, LoHaConfig.A1, LoHaConfig.B2])
        {
            Own(name).copy_(LowRankConfig.Kaiming(Own(name).shape, start.Random));
        }
    }

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var product = Own(LoHaConfig.B1).mm(Own(LoHaConfig.A1)) * Own(LoHaConfig.B2).mm(Own(LoHaConfig.A2));
        return product.mul(scale).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x)
    {
        if (!IsThin)
        {
            return base.forward(x);
        }

        using var scope = NewDisposeScope();
        var (left, right) = Thin();
        var thin = nn.functional.linear(x, right.to(x.dtype));   // [.., R²]
        return (BaseLayer.forward(x) + nn.functional.linear(thin, left.mul(scale).to(x.dtype))).MoveToOuterDisposeScope();
    }

    /// <returns>[out, R²] and [R², in].</returns>
    private (Tensor Left, Tensor Right) Thin() => (
        (Own(LoHaConfig.B1).unsqueeze(2) * Own(LoHaConfig.B2).unsqueeze(1)).flatten(1, 2),
        (Own(LoHaConfig.A1).unsqueeze(1) * Own(LoHaConfig.A2).unsqueeze(0)).flatten(0, 1));
}
