using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Low-rank Kronecker product: ΔW = s·W₁ ⊗ W₂, each factor whole or itself a product of rank r.</summary>
/// <remarks>
/// Edalati et al. 2022 (KronA), arXiv:2212.10650; LyCORIS, arXiv:2309.14859, §3.3; PEFT 0.20.0, <c>tuners/lokr/layer.py</c>. W₁ starts at zero, so
/// training starts at the base model.
/// </remarks>
[Method(
    "LoKr",
    "A Kronecker product of two small matrices per layer, of which the larger may have low rank.",
    "Small adapters whose update still has full rank: the rank of a Kronecker product is the product of the ranks.",
    Paper = "Yeh et al. 2024, Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation",
    Arxiv = "2309.14859",
    Parameters = "out₁·in₁ + out₂·in₂ per layer, where out = out₁·out₂ and in = in₁·in₂; r·(out₂ + in₂) for the second where that is less")]
[PeftType("LOKR")]
[PeftConstant("alpha_pattern", "{}")]
[PeftConstant("rank_pattern", "{}")]
[PeftConstant("use_effective_conv2d", "false")]
public sealed record LoKrConfig : LayerAdapterConfig
{
    private const string DropoutScale = "rank_dropout_scale";

    /// <summary>Keys of the smaller factor, [o₁, i₁]: whole, or as [o₁, R] and [R, i₁].</summary>
    internal const string W1 = "lokr_w1", W1A = "lokr_w1_a", W1B = "lokr_w1_b";

    /// <summary>Keys of the larger factor, [o₂, i₂]: whole, or as [o₂, R] and [R, i₂].</summary>
    internal const string W2 = "lokr_w2", W2A = "lokr_w2_a", W2B = "lokr_w2_b";

    [Description("Rank r of the larger factor; from half of its longer side on, it trains whole."), Range(1, 65_536), PeftName("r")]
    public int Rank { get; init; } = 8;

    [Description("Scale α; the update is multiplied by α/r."), Range(1e-3, 1e6)]
    public double Alpha { get; init; } = 8;

    [Description("Whether the smaller factor has the rank, too.")]
    public bool DecomposeBoth { get; init; }

    [Description("Sides of the smaller factor where it divides those of the layer, else the largest divisors up to it; -1: next to the square root."), Range(-1, 65_536)]
    public int DecomposeFactor { get; init; } = -1;

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer)
    {
        var ((out1, out2), (in1, in2)) = (Split(layer.Out, DecomposeFactor), Split(layer.In, DecomposeFactor));
        var (long1, long2) = (Math.Max(out1, in1), Math.Max(out2, in2));
        return
        [
            .. DecomposeBoth && 2 * Rank < long1
                ? (LayerTensor[])[new(W1A, [out1, Rank]), new(W1B, [Rank, in1])]
                : [new(W1, [out1, in1])],
            .. 2 * Rank < long2
                ? (LayerTensor[])[new(W2A, [out2, Rank]), new(W2B, [Rank, in2])]
                : [new(W2, [out2, in2])],
        ];
    }

    internal override AdaptedLinear Wrap(LayerParts parts) => new LoKrLinear(parts, Alpha / Rank);

    internal override void ToPeft(JsonObject fields)
    {
        LycorisFields.ToPeft(fields);
        fields[DropoutScale] = false;
    }

    internal override void FromPeft(JsonObject fields, JsonObject members)
    {
        LycorisFields.FromPeft(fields);
        fields.Remove(DropoutScale);
    }

    /// <summary>Two divisors of a side, the smaller first.</summary>
    /// <param name="factor">The smaller one where it divides the side; else none is above it. -1: no limit.</param>
    internal static (long Small, long Large) Split(long side, int factor)
    {
        if (factor > 0 && side % factor == 0)
        {
            return (factor, side / factor);   // even where it is the larger, as in PEFT
        }

        var most = factor == -1 ? side : factor;
        var small = 1L;
        for (var divisor = 2L; divisor <= most && divisor * divisor <= side; divisor++)
        {
            small = side % divisor == 0 ? divisor : small;
        }

        return (small, side / small);
    }
}

/// <summary>y = base(x) + s·W₁·X·W₂ᵀ, with x as a matrix X of i₁ rows and i₂ columns and y as one of o₁ rows and o₂ columns.</summary>
internal sealed class LoKrLinear(LayerParts parts, double scale) : AdaptedLinear(parts)
{
    private readonly LayerParts _parts = parts;

    public override void Initialise(AdapterStart start)
    {
        foreach (var (name, tensor) in _parts.Tensors)
        {
            if (name is not (LoKrConfig.W1 or LoKrConfig.W1A))
            {
                tensor.copy_(LowRankConfig.Kaiming(tensor.shape, start.Random));
            }
        }
    }

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var (first, second) = (First(), Second());
        return (first.unsqueeze(1).unsqueeze(3) * second.unsqueeze(0).unsqueeze(2)).reshape(Shape.Out, Shape.In).mul(scale).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var first = First().mul(scale).to(x.dtype);
        var rows = x.reshape([.. x.shape[..^1], first.shape[1], -1]);            // [.., i₁, i₂]
        var product = first.matmul(BySecond(rows));                              // [.., o₁, o₂]
        return (BaseLayer.forward(x) + product.reshape([.. x.shape[..^1], Shape.Out])).MoveToOuterDisposeScope();
    }

    private Tensor First() => Whole(LoKrConfig.W1, LoKrConfig.W1A, LoKrConfig.W1B);

    private Tensor Second() => Whole(LoKrConfig.W2, LoKrConfig.W2A, LoKrConfig.W2B);

    private Tensor Whole(string whole, string a, string b) => _parts.Tensors.TryGetValue(whole, out var tensor) ? tensor : Own(a).mm(Own(b));

    private Tensor BySecond(Tensor rows) => _parts.Tensors.TryGetValue(LoKrConfig.W2, out var whole)
        ? nn.functional.linear(rows, whole.to(rows.dtype))
        : nn.functional.linear(
            nn.functional.linear(rows, Own(LoKrConfig.W2B).to(rows.dtype)), Own(LoKrConfig.W2A).to(rows.dtype));
}
