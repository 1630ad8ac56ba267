using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Everything that trains, laid end to end, so that one update is a handful of operations however many tensors there are.</summary>
/// <remarks>
/// The parameters become views of one buffer per dtype, and their gradients views of a second one; the back-propagation adds into
/// these views. Parameters that are not float32 have float32 master values here: the update happens in those, and the parameter is their
/// rounding. A parameter that gets no gradient in a step counts as one with gradient zero.
/// </remarks>
public sealed class FlatParameters : IDisposable
{
    private readonly List<Part> _parts = [];

    /// <summary>Moves the storage of <paramref name="parameters"/> into the buffers; their values, names and handles stay.</summary>
    public FlatParameters(IReadOnlyList<Parameter> parameters)
    {
        using var noGrad = no_grad();
        foreach (var group in parameters.GroupBy(parameter => (parameter.dtype, Device: parameter.device.ToString())))
        {
            _parts.Add(Flatten([.. group]));
        }

        Count = parameters.Sum(parameter => parameter.numel());
    }

    /// <summary>Numbers that train.</summary>
    public long Count { get; }

    internal IReadOnlyList<Part> Parts => _parts;

    /// <summary>Sets every gradient to zero, in place.</summary>
    public void ZeroGradients()
    {
        using var scope = NewDisposeScope();   // also in-place operations return a new handle
        foreach (var part in _parts)
        {
            part.Gradients.zero_();
        }
    }

    /// <summary>Global L2 norm of the gradient.</summary>
    public double GradientNorm()
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        return Math.Sqrt(_parts.Sum(part => Math.Pow(part.Gradients.to_type(ScalarType.Float32).norm().item<float>(), 2)));
    }

    /// <summary>Scales the gradient so that its norm is at most <paramref name="maximum"/>, as PyTorch's <c>clip_grad_norm_</c> does.</summary>
    /// <param name="norm">Result of <see cref="GradientNorm"/>.</param>
    public void Clip(double norm, double maximum)
    {
        var factor = maximum / (norm + 1e-6);
        if (factor >= 1)
        {
            return;
        }

        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        foreach (var part in _parts)
        {
            part.Gradients.mul_(factor);
        }
    }

    /// <summary>Takes the parameters' present values as master values, after they were overwritten from outside.</summary>
    internal void RefreshMasters()
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        foreach (var part in _parts.Where(part => !part.IsMaster))
        {
            part.Masters.copy_(part.Values);
        }
    }

    public void Dispose()
    {
        foreach (var part in _parts)
        {
            part.Dispose();
        }
    }

    private static Part Flatten(IReadOnlyList<Parameter> parameters)
    {
        using var scope = NewDisposeScope();
        var values = cat([.. parameters.Select(parameter => parameter.detach().reshape(-1))]);
        var gradients = zeros_like(values);
        var offset = 0L;
        foreach (var parameter in parameters)
        {
            var length = parameter.numel();
            parameter.set_(values.narrow(0, offset, length).view(parameter.shape));
            parameter.grad = gradients.narrow(0, offset, length).view(parameter.shape);
            offset += length;
        }

        var masters = values.dtype == ScalarType.Float32 ? values : values.to_type(ScalarType.Float32);
        return new Part(values.DetachFromDisposeScope(), gradients.DetachFromDisposeScope(), masters.DetachFromDisposeScope());
    }

    /// <summary>Parameters of one dtype, end to end.</summary>
    /// <param name="Values">What the model computes with, [N].</param>
    /// <param name="Gradients">As <paramref name="Values"/>.</param>
    /// <param name="Masters">Float32, [N]; the very tensor <paramref name="Values"/> when that is float32.</param>
    internal sealed record Part(Tensor Values, Tensor Gradients, Tensor Masters) : IDisposable
    {
        /// <summary>Whether values and masters are one tensor.</summary>
        public bool IsMaster => ReferenceEquals(Values, Masters);

        public void Dispose()
        {
            Values.Dispose();
            Gradients.Dispose();
            Masters.Dispose();
        }
    }
}
