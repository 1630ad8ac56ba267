using TorchSharp.Modules;
using TrainingService.Training.Models;
using static TorchSharp.torch;
using Linear = TrainingService.Training.Models.Linear;

namespace TrainingService.Training.Adapters;

/// <summary>y = base(x) + scale·(dropout(x)·Aᵀ)·Bᵀ.</summary>
/// <remarks>
/// Hu et al. 2021, arXiv:2106.09685, §4.1. The factors are float32 also over a bfloat16 model: Adam's steps are far below the resolution of
/// bfloat16. The products of the update are in the model's format, with float32 sums, as those of the frozen layer are.
/// The frozen layer is not registered as a child: it belongs to the model and outlives this one.
/// </remarks>
internal sealed class LoraLinear : nn.Module<Tensor, Tensor>, ISharesInput
{
    public readonly Parameter lora_A;   // [R, in]
    public readonly Parameter lora_B;   // [out, R]

    private readonly Outside _base;
    private readonly double _dropout;

    /// <param name="a">Initial A, [R, in], float32; this layer takes it over.</param>
    public LoraLinear(nn.Module<Tensor, Tensor> baseLayer, Tensor a, long outFeatures, double scale, double dropout)
        : base(nameof(LoraLinear))
    {
        _base = new Outside(baseLayer);
        Scale = scale;
        _dropout = dropout;
        var b = zeros(outFeatures, a.shape[0], dtype: ScalarType.Float32, device: a.device);
        lora_A = Own(a);
        lora_B = Own(b);
        register_parameter(nameof(lora_A), lora_A);
        register_parameter(nameof(lora_B), lora_B);
    }

    // A parameter takes over the handle of its tensor, and with it the place in the caller's dispose scope.
    private static Parameter Own(Tensor initial)
    {
        var parameter = new Parameter(initial);
        parameter.DetachFromDisposeScope();
        return parameter;
    }

    public nn.Module<Tensor, Tensor> BaseLayer => _base.Layer;

    public double Scale { get; }

    public override Tensor forward(Tensor x) => RunTogether(x, [this])?[0] ?? RunAlone(x);

    /// <inheritdoc/>
    /// <remarks>Dropout draws for each layer by itself, and a base layer of another kind has products of its own: then null.</remarks>
    public IReadOnlyList<Tensor>? RunTogether(Tensor input, IReadOnlyList<nn.Module<Tensor, Tensor>> modules)
    {
        var products = modules.Select(module => (module as LoraLinear)?.AsProduct()).ToList();
        return products.TrueForAll(product => product is not null) ? LowRankProducts.Run(input, products!) : null;
    }

    private LowRankProduct? AsProduct() => BaseLayer is Linear { weight.requires_grad: false } plain && !Drops
        ? new(plain.weight, plain.bias, lora_A, lora_B, Scale)
        : null;

    private bool Drops => training && _dropout > 0;

    private Tensor RunAlone(Tensor x)
    {
        using var scope = NewDisposeScope();
        var y = BaseLayer.forward(x);
        var input = Drops ? nn.functional.dropout(x, _dropout) : x;
        var update = nn.functional.linear(nn.functional.linear(input, lora_A.to(x.dtype)), lora_B.mul(Scale).to(x.dtype));
        return (y + update).MoveToOuterDisposeScope();
    }

    // A field of a module type would be found by reflection, registered as a child and disposed with this layer.
    private sealed record Outside(nn.Module<Tensor, Tensor> Layer);
}
