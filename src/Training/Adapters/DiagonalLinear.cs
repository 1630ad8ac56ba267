using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>y = base(x) + s·((x·Rᵀ)∘(c − c₀))·Lᵀ: the numbers c train between two frozen thin matrices.</summary>
/// <remarks>The same as a frozen W − s·L·diag(c₀)·R beside s·L·diag(c)·R, but it starts at W to the bit and runs on a quantised one.</remarks>
internal abstract class DiagonalLinear(LayerParts parts, string prefix, double scale) : AdaptedLinear(parts)
{
    /// <summary>L, [out, r].</summary>
    private Parameter Left => Own(prefix + DiagonalConfig.Left);

    /// <summary>R, [r, in].</summary>
    private Parameter Right => Own(prefix + DiagonalConfig.Right);

    /// <summary>s·(c − c₀), [r].</summary>
    private Tensor Change => (Own(prefix + DiagonalConfig.Values) - Own(prefix + DiagonalConfig.Start)).mul(scale);

    public override LowRankFactors? Factors => new(Left * Change, Right, 1);

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return (Left * Change).mm(Right).MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start)
    {
        using var scope = NewDisposeScope();
        var rank = Left.shape[1];
        var (left, values, right) = Split(FrozenWeight());
        Left.copy_(left.narrow(1, 0, rank));
        Right.copy_(right.narrow(0, 0, rank));
        foreach (var name in (string[])[DiagonalConfig.Start, DiagonalConfig.Values])
        {
            Own(prefix + name).copy_(values.narrow(0, 0, rank));
        }
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var thin = nn.functional.linear(x, Right.to(x.dtype)) * Change.to(x.dtype);   // [.., r]
        return (BaseLayer.forward(x) + nn.functional.linear(thin, Left.to(x.dtype))).MoveToOuterDisposeScope();
    }

    /// <summary>W = left·diag(values)·right.</summary>
    /// <param name="weight">[out, in], float32.</param>
    /// <returns>[out, k], [k] and [k, in] with k the shorter side of W, float32 or better, in the caller's dispose scope.</returns>
    protected abstract (Tensor Left, Tensor Values, Tensor Right) Split(Tensor weight);
}
