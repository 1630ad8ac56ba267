using TorchSharp.Modules;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Quantization;

/// <summary>y = x·Wᵀ + b with W in codes. Each pass makes W in x's number format, multiplies, and lets it go.</summary>
/// <remarks>Dettmers et al. 2023, arXiv:2305.14314, eq. 5 and 6: W never trains, so the backward pass needs W and not x.</remarks>
public sealed class QuantizedLinear : nn.Module<Tensor, Tensor>
{
    private readonly Vector? _bias;

    /// <param name="weight">[out, in]; this layer takes it over.</param>
    /// <param name="bias">[out]; stays the model's.</param>
    public QuantizedLinear(QuantizedTensor weight, Parameter? bias)
        : base(nameof(QuantizedLinear))
    {
        Weight = weight;
        _bias = bias is null ? null : new Vector(bias);
    }

    /// <summary>[out, in]. Setting it disposes the weight that leaves: a method that starts from another base puts its own here.</summary>
    public QuantizedTensor Weight
    {
        get;
        set
        {
            if (!ReferenceEquals(field, value))
            {
                field?.Dispose();
                field = value;
            }
        }
    }

    public Parameter? Bias => _bias?.Parameter;

    /// <summary>Inputs [.., in] to outputs [.., out], in the caller's dispose scope.</summary>
    public override Tensor forward(Tensor input)
    {
        using var scope = NewDisposeScope();
        var product = is_grad_enabled() && input.requires_grad ? FrozenProduct.apply(input, Weight) : Product(input, Weight);
        return (Bias is null ? product : product + Bias).MoveToOuterDisposeScope();
    }

    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        if (disposing)
        {
            Weight.Dispose();
        }
    }

    private static Tensor Product(Tensor input, QuantizedTensor weight)
    {
        using var scope = NewDisposeScope();
        var rows = input.reshape(-1, input.shape[^1]);
        return Products.Multiply(rows, weight.Dequantize(input.dtype)).view([.. input.shape[..^1], weight.Shape[0]]).MoveToOuterDisposeScope();
    }

    // A field of a parameter's type would be found by reflection, registered, and disposed with this layer.
    private sealed record Vector(Parameter Parameter);

    /// <summary>x·Wᵀ whose backward pass makes W anew: the plain product would keep it, and with it the whole model in full.</summary>
    private sealed class FrozenProduct : autograd.SingleTensorFunction<FrozenProduct>
    {
        private const string Call = "call";

        public override string Name => nameof(FrozenProduct);

        /// <param name="vars">x [.., in], W.</param>
        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            var weight = (QuantizedTensor)vars[1];
            ctx.save_data(Call, new CallFacts(weight, BackwardPass.OfThisThread));
            ctx.set_materialize_grads(false);
            return Product((Tensor)vars[0], weight);
        }

        public override List<Tensor?> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            var call = (CallFacts)ctx.get_data(Call);
            return call.Pass.Compute([grad_output], count: 2, () => [InputGradient(grad_output, call.Weight), null]);
        }

        private static Tensor InputGradient(Tensor gradient, QuantizedTensor weight)
        {
            var rows = gradient.reshape(-1, gradient.shape[^1]);
            var dense = weight.Dequantize(gradient.dtype);
            return Products.Multiply(rows, dense.t()).view([.. gradient.shape[..^1], dense.shape[1]]);
        }

        private sealed record CallFacts(QuantizedTensor Weight, BackwardPass Pass);
    }
}
