using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Turns gradients into updates, and owns what it remembers between steps.</summary>
public abstract class Optimizer(FlatParameters parameters) : IDisposable
{
    private readonly Dictionary<string, Tensor[]> _moments = [];

    /// <summary>Updates so far.</summary>
    public int Steps { get; private set; }

    protected FlatParameters Parameters { get; } = parameters;

    /// <summary>Updates every parameter from its gradient.</summary>
    public void Step(double learningRate)
    {
        Steps++;
        using var noGrad = no_grad();
        for (var index = 0; index < Parameters.Parts.Count; index++)
        {
            using var scope = NewDisposeScope();
            var part = Parameters.Parts[index];
            Update(index, part.Masters, part.Gradients.to_type(ScalarType.Float32), learningRate);
            if (!part.IsMaster)
            {
                part.Values.copy_(part.Masters);
            }
        }
    }

    /// <summary>What a checkpoint needs, besides the parameters, to go on exactly; the tensors stay the optimizer's.</summary>
    public IReadOnlyList<(string Name, Tensor Tensor)> State =>
    [
        .. _moments.SelectMany(moment => moment.Value.Select((tensor, index) => ($"{moment.Key}.{index}", tensor))),
        .. Parameters.Parts.Select((part, index) => (part, index)).Where(x => !x.part.IsMaster).Select(x => ($"master.{x.index}", x.part.Masters)),
    ];

    /// <summary>Restores <see cref="State"/>. The parameters themselves must already have their saved values.</summary>
    /// <param name="read">Gives the tensor saved under a name; the caller's dispose scope owns it.</param>
    public void Load(int steps, Func<string, Tensor> read)
    {
        Steps = steps;
        using var noGrad = no_grad();
        foreach (var (name, tensor) in State)
        {
            using var scope = NewDisposeScope();
            tensor.copy_(read(name));
        }
    }

    public void Dispose()
    {
        foreach (var tensor in _moments.Values.SelectMany(tensors => tensors))
        {
            tensor.Dispose();
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>Updates one buffer in place.</summary>
    /// <param name="values">Float32, [N].</param>
    /// <param name="gradients">Float32, [N]; may be overwritten only if it is not the caller's own buffer, so leave it as it is.</param>
    protected abstract void Update(int part, Tensor values, Tensor gradients, double learningRate);

    /// <summary>Declares one remembered number per parameter, zero at first.</summary>
    protected Tensor[] Remember(string name)
    {
        using var noGrad = no_grad();
        return _moments[name] = [.. Parameters.Parts.Select(part => zeros_like(part.Masters).DetachFromDisposeScope())];
    }
}
