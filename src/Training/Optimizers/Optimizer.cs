using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Turns gradients into updates, and owns what it remembers between steps.</summary>
/// <remarks>
/// The flat buffers are cut into stretches that are updated alike, which are few: how many tensors train makes no difference to how many
/// operations a step has.
/// </remarks>
public abstract class Optimizer : IDisposable
{
    private readonly FlatParameters _parameters;
    private readonly List<(string Name, Tensor Tensor)> _state = [];
    private readonly List<IDisposable> _owned = [];

    /// <param name="parameters">Not owned.</param>
    /// <param name="loraPlusRatio">See <see cref="LoraPlus"/>; null: off.</param>
    /// <param name="kindOf">What must not share a stretch has different kinds; null: all are alike.</param>
    protected Optimizer(FlatParameters parameters, double? loraPlusRatio, Func<FlatGroup, object?>? kindOf = null)
    {
        _parameters = parameters;
        Stretches =
        [
            .. parameters.Parts.SelectMany(part => Stretch.Cut(part, group =>
            {
                var (rateFactor, decays) = LoraPlus.Of(group.Role, group.Shape.Count, loraPlusRatio);
                return (rateFactor, decays, kindOf?.Invoke(group));
            })).Select((stretch, index) => stretch with { Index = index }),
        ];
    }

    /// <summary>Updates so far.</summary>
    public int Steps { get; private set; }

    internal IReadOnlyList<Stretch> Stretches { get; }

    /// <summary>Updates every parameter from its gradient.</summary>
    public void Step(double learningRate)
    {
        Steps++;
        using var noGrad = no_grad();
        foreach (var stretch in Stretches)
        {
            using var scope = NewDisposeScope();
            Update(stretch, learningRate * stretch.RateFactor);
        }

        foreach (var part in _parameters.Parts.Where(part => !part.IsMaster))
        {
            using var scope = NewDisposeScope();
            part.Values.copy_(part.Masters);
        }
    }

    /// <summary>What a checkpoint needs, besides the parameters, to go on exactly; the tensors stay the optimizer's.</summary>
    public IReadOnlyList<(string Name, Tensor Tensor)> State =>
    [
        .. _state,
        .. _parameters.Parts.Select((part, index) => (part, index)).Where(x => !x.part.IsMaster).Select(x => ($"master/{x.index}", x.part.Masters)),
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
        _owned.ForEach(owned => owned.Dispose());

        GC.SuppressFinalize(this);
    }

    /// <summary>Updates one stretch of the master values in place, and leaves the gradients as they are.</summary>
    internal abstract void Update(Stretch stretch, double learningRate);

    /// <summary>Declares a tensor that is kept between steps and saved with them, zero at first.</summary>
    internal Tensor Remember(string name, Stretch stretch, long[] shape, ScalarType dtype = ScalarType.Float32)
    {
        using var noGrad = no_grad();
        var tensor = zeros(shape, dtype: dtype, device: stretch.Part.Masters.device).DetachFromDisposeScope();
        _state.Add(($"{name}/{stretch.Index}", tensor));
        return Own(tensor);
    }

    /// <summary>Declares one remembered number per parameter for each stretch.</summary>
    internal Tensor[] Remember(string name) => [.. Stretches.Select(stretch => Remember(name, stretch, [stretch.Length]))];

    /// <summary>Hands over what goes with the optimizer.</summary>
    internal T Own<T>(T thing)
        where T : IDisposable
    {
        _owned.Add(thing);
        return thing;
    }
}
