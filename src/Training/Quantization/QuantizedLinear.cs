using TorchSharp.Modules;
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
        using var dense = weight.Dequantize(input.dtype);
        return nn.functional.linear(input, dense);
    }

    // A field of a parameter's type would be found by reflection, registered, and disposed with this layer.
    private sealed record Vector(Parameter Parameter);

    /// <summary>x·Wᵀ whose backward pass makes W anew: the plain product would keep it, and with it the whole model in full.</summary>
    private sealed class FrozenProduct : autograd.SingleTensorFunction<FrozenProduct>
    {
        private const string WeightKey = "weight";

        [ThreadStatic]
        private static Tensor? _returned;

        public override string Name => nameof(FrozenProduct);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            var weight = (QuantizedTensor)vars[1];
            ctx.save_data(WeightKey, weight);
            return Product((Tensor)vars[0], weight);
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            // Handles keep memory. The one that comes in was made for this call, and what the call before gave back has long been taken over;
            // without this, the gradients of all layers would stay until the step's dispose scope ends.
            _returned?.Dispose();
            using var incoming = grad_output;
            using var dense = ((QuantizedTensor)ctx.get_data(WeightKey)).Dequantize(incoming.dtype);
            _returned = incoming.matmul(dense);
            return [_returned, null!];
        }
    }
}
