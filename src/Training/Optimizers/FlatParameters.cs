using TorchSharp.Modules;
using TrainingService.Training.Adapters;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Everything that trains, laid end to end, so that one update is a handful of operations however many tensors there are.</summary>
/// <remarks>
/// The parameters become views of one buffer per dtype, and their gradients views of a second one; the back-propagation adds into
/// these views. Parameters that are not float32 have float32 master values here: the update happens in those, and the parameter is their
/// rounding. A parameter that gets no gradient in a step counts as one with gradient zero. <see cref="FlatLayout"/> says what stands where.
/// </remarks>
public sealed class FlatParameters : IDisposable
{
    private readonly List<FlatPart> _parts = [];

    /// <summary>Moves the storage of parameters without a role into the buffers.</summary>
    public FlatParameters(IReadOnlyList<Parameter> parameters)
        : this([.. parameters.Select(parameter => new TrainableTensor("", parameter))])
    {
    }

    /// <summary>Moves the storage of <paramref name="tensors"/> into the buffers; their values, names and handles stay.</summary>
    public FlatParameters(IReadOnlyList<TrainableTensor> tensors)
    {
        using var noGrad = no_grad();
        foreach (var part in tensors.GroupBy(tensor => (tensor.Parameter.dtype, Device: tensor.Parameter.device.ToString())))
        {
            _parts.Add(Flatten([.. part]));
        }

        Count = tensors.Sum(tensor => tensor.Parameter.numel());
    }

    /// <summary>Numbers that train.</summary>
    public long Count { get; }

    internal IReadOnlyList<FlatPart> Parts => _parts;

    /// <summary>Sets every gradient to zero, in place.</summary>
    public void ZeroGradients()
    {
        using var scope = NewDisposeScope();   // also in-place operations return a new handle
        foreach (var part in _parts)
        {
            part.Gradients.zero_();
        }
    }

    /// <summary>Global L2 norm of the gradient: a float32 scalar on the device, in the caller's dispose scope. Reading it waits for the device.</summary>
    public Tensor GradientNormOnDevice()
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var norms = _parts.SelectMany(NormsOf).Select(norm => norm.to(_parts[0].Gradients.device)).ToArray();
        return (norms.Length == 1 ? norms[0] : stack(norms).norm()).MoveToOuterDisposeScope();
    }

    /// <summary>Global L2 norm of the gradient.</summary>
    public double GradientNorm()
    {
        using var scope = NewDisposeScope();
        return GradientNormOnDevice().item<float>();
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

    /// <summary>Norms of pieces of a gradient; in pieces where a copy in float32 is needed, so that it stays small.</summary>
    private static IEnumerable<Tensor> NormsOf(FlatPart part)
    {
        const long piece = 1 << 24;
        return part.IsMaster ? [part.Gradients.norm()] : part.Gradients.split(piece).Select(gradients => gradients.to_type(ScalarType.Float32).norm());
    }

    private static FlatPart Flatten(IReadOnlyList<TrainableTensor> tensors)
    {
        using var scope = NewDisposeScope();
        var groups = FlatLayout.Of([.. tensors.Select(tensor => ((IReadOnlyList<long>)tensor.Parameter.shape, tensor.Role))]);
        var (dtype, device) = (tensors[0].Parameter.dtype, tensors[0].Parameter.device);
        var values = zeros(groups.Sum(group => group.Length), dtype: dtype, device: device);
        var gradients = zeros_like(values);
        foreach (var group in groups)
        {
            for (var place = 0; place < group.Members.Count; place++)
            {
                // One at a time, so that the old storage goes before the new one has taken all its memory.
                using var tensorScope = NewDisposeScope();
                var parameter = tensors[group.Members[place]].Parameter;
                var view = group.Stack(values, place, 1).squeeze(0);
                view.copy_(parameter);
                parameter.set_(view);
                parameter.grad = group.Stack(gradients, place, 1).squeeze(0);
            }
        }

        var masters = dtype == ScalarType.Float32 ? values : values.to_type(ScalarType.Float32);
        return new(groups, values.DetachFromDisposeScope(), gradients.DetachFromDisposeScope(), masters.DetachFromDisposeScope());
    }
}

/// <summary>Parameters of one dtype on one device, end to end.</summary>
/// <param name="Values">What the model computes with, [N].</param>
/// <param name="Gradients">As <paramref name="Values"/>.</param>
/// <param name="Masters">Float32, [N]; the very tensor <paramref name="Values"/> when that is float32.</param>
internal sealed record FlatPart(IReadOnlyList<FlatGroup> Groups, Tensor Values, Tensor Gradients, Tensor Masters) : IDisposable
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
