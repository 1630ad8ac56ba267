using TorchSharp.Modules;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;
using Linear = TrainingService.Training.Models.Linear;

namespace TrainingService.Training.Adapters;

/// <summary>What a layer starts at: the factors, and those of the part that the frozen weight loses.</summary>
internal sealed record ResidualStart(Tensor B, Tensor A, Tensor RemovedB, Tensor RemovedA);

/// <summary>y = (W − s·B₀·A₀)·x + s·B·A·x + b, with factors that start at B₀ and A₀.</summary>
/// <remarks>
/// Over a quantised base the frozen weight is Q(W − s·B₀·A₀), made from W as the checkpoint has it and put in the place of the model's codes: they
/// follow from the saved tensors and the checkpoint. The product is formed in float64, so that the order of its sums, which differs between
/// machines, all but never decides a code.
/// </remarks>
internal abstract class ResidualLinear(LayerParts parts, double scale, double dropout) : LoraLinear(parts, scale, dropout)
{
    private readonly Remainder _remainder = new();

    public override nn.Module<Tensor, Tensor> BaseLayer => _remainder.Layer ?? base.BaseLayer;

    /// <summary>The update of the unchanged base: the factors and, subtracted, those that they started at.</summary>
    public override LowRankFactors? Factors => Quantization is not null ? base.Factors : new(cat([B, _remainder.B!.neg()], 1), cat([A, _remainder.A!], 0), Scale);

    public override IEnumerable<SavedTensor> Saved =>
    [
        new(LowRankConfig.A, [2 * A.shape[0], A.shape[1]], () => cat([A, _remainder.A!], 0), value =>
        {
            var parts = value.to(A.dtype, A.device).chunk(2, 0);
            A.copy_(parts[0]);
            _remainder.A = Kept(_remainder.A, parts[1]);
        }),
        new(LowRankConfig.B, [B.shape[0], 2 * B.shape[1]], () => cat([B, _remainder.B!.neg()], 1), value =>
        {
            var parts = value.to(B.dtype, B.device).chunk(2, 1);
            B.copy_(parts[0]);
            _remainder.B = Kept(_remainder.B, parts[1].neg());
        }),
    ];

    public override Tensor Delta()
    {
        if (Quantization is not null)
        {
            return base.Delta();
        }

        using var scope = NewDisposeScope();
        return B.mm(A).sub(_remainder.B!.mm(_remainder.A!)).mul(Scale).MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start)
    {
        using var scope = NewDisposeScope();
        var first = Begin(start);
        B.copy_(first.B);
        A.copy_(first.A);
        _remainder.B = Kept(_remainder.B, first.RemovedB);
        _remainder.A = Kept(_remainder.A, first.RemovedA);
    }

    /// <summary>Makes the remainder of W. It follows from the saved tensors alone, so that a resumed run has the same one to the bit.</summary>
    public override void Settle()
    {
        using var scope = NewDisposeScope();
        if (Quantization is not null)
        {
            Rebase(Quantized(QuantizedSplit.Rest(OriginalWeight(), _remainder.B!, _remainder.A!, Scale)));
            return;
        }

        var weight = FrozenWeight();
        var rest = addmm(weight, _remainder.B!, _remainder.A!, beta: 1, alpha: -(float)Scale).to(WeightOf(base.BaseLayer).dtype);
        _remainder.Layer?.Dispose();
        _remainder.Layer = new Linear(Frozen(rest), FrozenBias is { } bias ? Frozen(bias.alias()) : null);
    }

    /// <summary>The codes of what the frozen weight keeps; as those of the base are made, for most methods.</summary>
    /// <param name="rest">[out, in], float32.</param>
    protected virtual QuantizedTensor Quantized(Tensor rest) => Quantization!.Quantize(rest, Shape.Name);

    /// <summary>The first values, in the caller's dispose scope.</summary>
    protected virtual ResidualStart Begin(AdapterStart start)
    {
        var (b, a) = Start(FrozenWeight(), start);
        return new(b, a, b, a);
    }

    /// <summary>Factors whose product is the part of W that trains.</summary>
    /// <param name="weight">[out, in], float32.</param>
    /// <returns>B [out, R] and A [R, in], with s·B·A that part, in the caller's dispose scope.</returns>
    protected abstract (Tensor B, Tensor A) Start(Tensor weight, AdapterStart start);

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _remainder.Layer?.Dispose();
            _remainder.A?.Dispose();
            _remainder.B?.Dispose();
        }

        base.Dispose(disposing);
    }

    private static Tensor Kept(Tensor? old, Tensor value)
    {
        old?.Dispose();
        return value.detach().to_type(ScalarType.Float32).clone().DetachFromDisposeScope();
    }

    private static Parameter Frozen(Tensor value)
    {
        var parameter = new Parameter(value, requires_grad: false);
        parameter.DetachFromDisposeScope();
        return parameter;
    }

    // Fields of a module's or a tensor's type would be found by reflection and registered as this layer's.
    private sealed class Remainder
    {
        public Linear? Layer { get; set; }

        public Tensor? A { get; set; }

        public Tensor? B { get; set; }
    }
}
