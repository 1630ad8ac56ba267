using TorchSharp.Modules;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>y = w · x / √(mean(x²) + ε), the division in float32.</summary>
/// <remarks>Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4. Like the checkpoints' own code, w multiplies after rounding to x's format.</remarks>
internal sealed class RmsNorm : nn.Module<Tensor, Tensor>
{
    public readonly Parameter weight;   // [D]
    private readonly double _epsilon;

    public RmsNorm(Parameter weight, double epsilon)
        : base(nameof(RmsNorm))
    {
        this.weight = weight;
        _epsilon = epsilon;
        RegisterComponents();
    }

    /// <summary>[.., D] to [.., D], in the caller's dispose scope.</summary>
    public override Tensor forward(Tensor input)
    {
        using var scope = NewDisposeScope();
        return RmsNormFunction.apply(input, weight, _epsilon).MoveToOuterDisposeScope();
    }
}

/// <summary>The norm as one node of the graph, in the fewest passes over the activations: x and one number per row are kept for later.</summary>
internal sealed class RmsNormFunction : autograd.SingleTensorFunction<RmsNormFunction>
{
    private const string Call = "call";

    public override string Name => nameof(RmsNormFunction);

    /// <param name="vars">x [.., D], w [D], ε.</param>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        using var scope = NewDisposeScope();
        var (x, weight, epsilon) = ((Tensor)vars[0], (Tensor)vars[1], (double)vars[2]);
        var wide = x.to(ScalarType.Float32);
        var scale = linalg.vector_norm(wide, 2, [-1L], keepdim: true).square().div_(x.shape[^1]).add_(epsilon).rsqrt_();   // [.., 1]
        var y = (wide * scale).to(x.dtype).mul_(weight);
        ctx.save_for_backward([x, weight, scale.MoveToOuterDisposeScope()]);
        ctx.save_data(Call, new CallFacts(x.requires_grad, weight.requires_grad, BackwardPass.OfThisThread));
        ctx.set_materialize_grads(false);
        return y.MoveToOuterDisposeScope();
    }

    public override List<Tensor?> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var call = (CallFacts)ctx.get_data(Call);
        return call.Pass.Compute([grad_output], count: 3, () => GradientsOf(call, ctx.get_saved_variables(), grad_output));
    }

    /// <remarks>With s = 1/√(mean(x²) + ε) and t = g·w, the gradient is s·t - x·s³·mean(t·x).</remarks>
    private static List<Tensor?> GradientsOf(CallFacts call, List<Tensor> saved, Tensor gradient)
    {
        var (x, weight, scale) = (saved[0].to(ScalarType.Float32), saved[1], saved[2]);
        var g = gradient.to(ScalarType.Float32);
        Tensor? ofInput = null, ofWeight = null;
        if (call.WeightTrains)
        {
            ofWeight = (x * scale).mul_(g).reshape(-1, x.shape[^1]).sum(dim: 0).to(weight.dtype);
        }

        if (call.InputTrains)
        {
            var t = g * weight.to(ScalarType.Float32);
            var share = (t * x).sum(dim: -1, keepdim: true).mul_(scale.pow(3)).div_(x.shape[^1]);   // [.., 1]
            ofInput = t.mul_(scale).addcmul_(x, share, value: -1).to(saved[0].dtype);
        }

        return [ofInput, ofWeight, null];
    }

    private sealed record CallFacts(bool InputTrains, bool WeightTrains, BackwardPass Pass);
}
