using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>y = x·Wᵀ + b, around tensors that it is given: nothing is allocated only to be overwritten by a checkpoint.</summary>
public sealed class Linear : nn.Module<Tensor, Tensor>
{
    /// <summary>[out, in].</summary>
    public readonly Parameter weight;

    /// <summary>[out]; null for none.</summary>
    public readonly Parameter? bias;

    /// <summary>Takes ownership of the tensors.</summary>
    public Linear(Parameter weight, Parameter? bias)
        : base(nameof(Linear))
    {
        this.weight = weight;
        this.bias = bias;
        RegisterComponents();
    }

    /// <summary>Inputs [.., in] to outputs [.., out], in the caller's dispose scope.</summary>
    public override Tensor forward(Tensor input) => nn.functional.linear(input, weight, bias);
}
