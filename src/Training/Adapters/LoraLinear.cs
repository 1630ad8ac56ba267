using TorchSharp.Modules;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;
using Linear = TrainingService.Training.Models.Linear;

namespace TrainingService.Training.Adapters;

/// <summary>y = base(x) + scale·(dropout(x)·Aᵀ)·Bᵀ.</summary>
/// <remarks>
/// Hu et al. 2021, arXiv:2106.09685, §4.1. The factors are float32 also over a bfloat16 model: Adam's steps are far below the resolution of
/// bfloat16. The products of the update are in the model's format, with float32 sums, as those of the frozen layer are.
/// </remarks>
internal class LoraLinear(LayerParts parts, double scale, double dropout) : AdaptedLinear(parts), ISharesInput
{
    /// <summary>[R, in].</summary>
    protected Parameter A => Own(LowRankConfig.A);

    /// <summary>[out, R].</summary>
    protected Parameter B => Own(LowRankConfig.B);

    protected double Scale => scale;

    protected bool Drops => training && dropout > 0;

    public override LowRankFactors? Factors => new(B, A, scale);

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return B.mm(A).mul(scale).MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start) => A.copy_(LowRankConfig.Kaiming(A.shape, start.Random));

    /// <inheritdoc/>
    /// <remarks>Two libraries round differently: with B at zero, the layer gives this to the bit.</remarks>
    public override Tensor RunWithoutUpdate(Tensor x)
    {
        if (AsProduct() is not { } product || !ReferenceEquals(product.Weight, (ModelLayer as Linear)?.weight))
        {
            return base.RunWithoutUpdate(x);
        }

        using var scope = NewDisposeScope();
        var y = Products.Multiply(x.reshape(-1, x.shape[^1]), product.Weight, product.Bias);
        return y.view([.. x.shape[..^1], y.shape[1]]).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x) => RunTogether(x, [this])?[0] ?? RunAlone(x);

    /// <inheritdoc/>
    /// <remarks>Dropout draws for each layer by itself, and a base layer of another kind has products of its own: then null.</remarks>
    public IReadOnlyList<Tensor>? RunTogether(Tensor input, IReadOnlyList<nn.Module<Tensor, Tensor>> modules)
    {
        var products = modules.Select(module => (module as LoraLinear)?.AsProduct()).ToList();
        return products.TrueForAll(product => product is not null) ? LowRankProducts.Run(input, products!) : null;
    }

    /// <summary>The layer as a frozen product and its update, where it is nothing more.</summary>
    protected virtual LowRankProduct? AsProduct() => BaseLayer is Linear { weight.requires_grad: false } plain && !Drops
        ? new(plain.weight, plain.bias, A, B, scale)
        : null;

    protected Tensor Dropped(Tensor x) => Drops ? nn.functional.dropout(x, dropout) : x;

    protected virtual Tensor RunAlone(Tensor x)
    {
        using var scope = NewDisposeScope();
        return (BaseLayer.forward(x) + Update(Dropped(x))).MoveToOuterDisposeScope();
    }

    /// <summary>scale·x·Aᵀ·Bᵀ in x's number format, in the caller's dispose scope.</summary>
    protected Tensor Update(Tensor x) => nn.functional.linear(nn.functional.linear(x, A.to(x.dtype)), B.mul(scale).to(x.dtype));
}
