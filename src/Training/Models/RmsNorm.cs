using TorchSharp.Modules;
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
        var wide = input.to(ScalarType.Float32);
        var scale = wide.square().mean([-1L], keepdim: true).add(_epsilon).rsqrt();
        return (weight * (wide * scale).to(input.dtype)).MoveToOuterDisposeScope();
    }
}
