using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Weight-decomposed low-rank adaptation: y = (g/ν)·(W + s·B·A)·x, with ν the norms of the rows of W + s·B·A.</summary>
/// <remarks>
/// Liu et al. 2024, arXiv:2402.09353, eq. 5 and 11; PEFT 0.20.0, <c>tuners/lora/dora.py</c>. g starts at the norms of W's rows and B at zero, so
/// training starts at the base model. No gradient goes through ν (§4.3).
/// </remarks>
[Method(
    "DoRA",
    "LoRA for the direction of each output's weights, and a trained number for their length.",
    "LoRA's tasks at low ranks, where a few more numbers per layer and a slower step are well spent.",
    Paper = "Liu et al. 2024, DoRA: Weight-Decomposed Low-Rank Adaptation",
    Arxiv = "2402.09353",
    Parameters = "r·(in + out) + out per layer")]
public sealed record DoraConfig : LowRankConfig
{
    /// <summary>Key of g, [out]; without the ending of a module's weight, as PEFT writes it.</summary>
    internal const string Magnitude = "lora_magnitude_vector";

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) => [.. base.TensorsOf(layer), new(Magnitude, [layer.Out])];

    internal override AdaptedLinear Wrap(LayerParts parts) => new DoraLinear(parts, Select(parts.Shape).Scale, Dropout);
}

/// <summary>y = base(x) + (g/ν − 1)·(base(x) − b) + (g/ν)·s·B·A·x; the first two terms' x is the one after dropout where there is any.</summary>
internal sealed class DoraLinear(LayerParts parts, double scale, double dropout) : LoraLinear(parts, scale, dropout)
{
    private Parameter Magnitude => Own(DoraConfig.Magnitude);

    public override LowRankFactors? Factors => null;   // a rescaling of rows has full rank

    public override void Initialise(AdapterStart start)
    {
        base.Initialise(start);
        Magnitude.copy_(Norms(FrozenWeight()));
    }

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var weight = FrozenWeight();
        var sum = Sum(weight);
        return (Share(sum).unsqueeze(1) * sum - weight).MoveToOuterDisposeScope();
    }

    protected override LowRankProduct? AsProduct() => null;

    protected override Tensor RunAlone(Tensor x)
    {
        using var scope = NewDisposeScope();
        var share = Share(Sum(FrozenWeight())).to(x.dtype);   // [out]
        var y = BaseLayer.forward(x);
        var input = Dropped(x);
        var turned = Drops ? BaseLayer.forward(input) : y;
        if (FrozenBias is { } bias)
        {
            turned = turned - bias;
        }

        return (y + (share - 1) * turned + share * Update(input)).MoveToOuterDisposeScope();
    }

    private Tensor Sum(Tensor weight) => addmm(weight, B, A, beta: 1, alpha: (float)Scale);

    private Tensor Share(Tensor sum) => Magnitude / Norms(sum.detach());

    private static Tensor Norms(Tensor weight) => weight.norm(1, false, 2);
}
