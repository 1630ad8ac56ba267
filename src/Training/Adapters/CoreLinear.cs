using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>y = base(x) + s·((dropout(x)·Aᵀ)·Rᵀ)·Bᵀ, where R alone trains.</summary>
internal abstract class CoreLinear(LayerParts parts, double scale, double dropout) : AdaptedLinear(parts)
{
    /// <summary>[r, in].</summary>
    protected Parameter A => Own(CoreConfig.A);

    /// <summary>[out, r].</summary>
    protected Parameter B => Own(CoreConfig.B);

    /// <summary>[r, r].</summary>
    protected Parameter R => Own(CoreConfig.R);

    public override LowRankFactors? Factors => new(B.mm(R), A, scale);

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return B.mm(R).mm(A).mul(scale).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var input = training && dropout > 0 ? nn.functional.dropout(x, dropout) : x;
        var thin = nn.functional.linear(nn.functional.linear(input, A.to(x.dtype)), R.mul(scale).to(x.dtype));   // [.., r]
        return (BaseLayer.forward(x) + nn.functional.linear(thin, B.to(x.dtype))).MoveToOuterDisposeScope();
    }
}
