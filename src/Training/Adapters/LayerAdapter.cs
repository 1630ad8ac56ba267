using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>A method's tensors beside chosen linear layers of a running model, and the weights that train with them.</summary>
internal class LayerAdapter : Adapter
{
    private readonly CausalLm _model;
    private readonly List<(LinearSlot Slot, AdaptedLinear Layer)> _layers = [];
    private readonly Dictionary<string, Tensor> _shared = [];
    private readonly List<TrainableTensor> _trainable = [];
    private readonly List<SavedTensor> _saved = [];
    private bool _merged;
    private bool _trainsInPlace;

    public LayerAdapter(CausalLm model, LayerAdapterConfig config, LayerPlan plan)
    {
        if (model.Quantization is not null && QuantizedBase.Trained(plan.FullWeights, model.Config) is { Count: > 0 } trained)
        {
            throw TrainingException.InvalidSpec(QuantizedBase.RefusesTrained(trained[0]), "adapter.modules_to_save");
        }

        Config = config;
        _model = model;
        foreach (var tensor in config.SharedBy(plan.Layers))
        {
            var parameter = Empty(tensor, model.Device);
            _shared.Add(tensor.Name, parameter);
            _saved.Add(SavedTensor.Of(tensor.Name, parameter));
            if (tensor.Trains)
            {
                _trainable.Add(new TrainableTensor(tensor.Name, parameter) { Role = tensor.Role });
            }
        }

        var slots = model.Linears.ToDictionary(slot => slot.Name);
        foreach (var shape in plan.Layers)
        {
            var slot = slots[shape.Name];
            var declared = config.TensorsOf(shape);
            var tensors = declared.ToDictionary(tensor => tensor.Name, tensor => Empty(tensor, model.Device));
            var layer = config.Wrap(new LayerParts(slot, shape, tensors, _shared, model.Quantization));
            slot.Module = layer;
            _layers.Add((slot, layer));
            var prefix = PeftFolder.KeyPrefix + shape.Name + ".";
            _trainable.AddRange(declared.Where(tensor => tensor.Trains)
                .Select(tensor => new TrainableTensor(prefix + tensor.Name, tensors[tensor.Name]) { Role = tensor.Role }));
            _saved.AddRange(layer.Saved.Select(saved => saved with { Name = prefix + saved.Name }));
        }

        TrainInPlace(plan);
    }

    public override IReadOnlyList<TrainableTensor> Trainable => _trainable;

    public override IReadOnlyList<LayerUpdate> Updates => _layers.ConvertAll(
        pair => new LayerUpdate(pair.Layer.Shape.Name, () => AdaptedLinear.WeightOf(pair.Slot.Base), () => pair.Layer.Factors, pair.Layer.Delta));

    public override QuantizationConfig? Quantization => _model.Quantization;

    /// <summary>The choice as it is saved.</summary>
    protected LayerAdapterConfig Config { get; set; }

    protected IEnumerable<AdaptedLinear> Layers => _layers.Select(pair => pair.Layer);

    /// <summary>First values of all tensors.</summary>
    /// <param name="measured">What <see cref="LayerAdapterConfig.Measure"/> gave.</param>
    public virtual void Initialise(int seed, IReadOnlyDictionary<string, Tensor> measured)
    {
        // One stream of numbers on the CPU for all layers in order: the same start on every device.
        using var off = no_grad();
        using var generator = new Generator((ulong)seed, CPU);
        using var scope = NewDisposeScope();
        var start = new AdapterStart(generator, measured);
        Config.InitialiseShared(_shared, start);
        foreach (var (_, layer) in _layers)
        {
            layer.Initialise(start);
        }

        Settle();
    }

    public override IDisposable? SwitchOff() =>
        _trainsInPlace || (Config.MakesQuantizedBase && Quantization is not null) ? null : new SwitchedOff(_layers);

    public override void SetTraining(bool training)
    {
        foreach (var (_, layer) in _layers)
        {
            layer.train(training);
        }
    }

    public override void Save(string folder, ModelCard card)
    {
        ObjectDisposedException.ThrowIf(_merged, this);
        PeftFolder.Write(folder, Config, _model.Config, _saved, card);
        QuantizedBase.Write(folder, _model.Quantization);
    }

    public override void Load(string folder)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        PeftFolder.Open(folder).CopyInto(_saved, Config);
        Settle();
    }

    public override void MergeIntoModel()
    {
        ObjectDisposedException.ThrowIf(_merged, this);
        using var off = no_grad();
        var updates = Updates;
        Detach();
        foreach (var ((slot, layer), update) in _layers.Zip(updates))
        {
            using var scope = NewDisposeScope();
            _model.SetWeight(slot, Merge(update));
            layer.MergeBias();
        }

        _merged = true;
    }

    /// <summary>Lets weights of the model train in place.</summary>
    /// <param name="tensors">Name of each weight, and of its tensor in the saved file.</param>
    protected void TrainInPlace(IEnumerable<(string Weight, string Key)> tensors)
    {
        var weights = _model.NamedWeights().ToDictionary(weight => weight.Name, weight => weight.Parameter);
        var roles = _model.Config.Weights.ToDictionary(weight => weight.Name, TrainedShape.RoleOf);
        foreach (var (name, key) in tensors)
        {
            _trainsInPlace = true;
            weights[name].requires_grad = true;
            _trainable.Add(new TrainableTensor(PeftFolder.KeyPrefix + key, weights[name]) { Role = roles[name] });
            _saved.Add(SavedTensor.Of(PeftFolder.KeyPrefix + key, weights[name]));
        }
    }

    protected override void Dispose(bool disposing)
    {
        if (!disposing)
        {
            return;
        }

        Detach();
        foreach (var (_, layer) in _layers)
        {
            layer.Dispose();
        }

        foreach (var tensor in _shared.Values)
        {
            tensor.Dispose();
        }

        _layers.Clear();
        _saved.Clear();
        foreach (var trained in _trainable.Where(tensor => !tensor.Parameter.IsInvalid))
        {
            trained.Parameter.requires_grad = false;
        }

        _trainable.Clear();
    }

    // A parameter takes over the handle of its tensor, and with it the place in the caller's dispose scope.
    private static Parameter Empty(LayerTensor tensor, Device device)
    {
        var parameter = new Parameter(zeros([.. tensor.Shape], dtype: ScalarType.Float32, device: device), tensor.Trains);
        parameter.DetachFromDisposeScope();
        return parameter;
    }

    private void TrainInPlace(LayerPlan plan)
    {
        var adapted = plan.Layers.Select(layer => layer.Name).ToHashSet();
        TrainInPlace(plan.Biases.Concat(plan.FullWeights).Select(
            name => (name, LayerPlan.ModuleOf(name) is var module && adapted.Contains(module) ? module + ".base_layer.bias" : name)));
    }

    private void Settle()
    {
        foreach (var (_, layer) in _layers)
        {
            layer.Settle();
        }
    }

    private void Detach()
    {
        foreach (var (slot, _) in _layers)
        {
            slot.Module = slot.Base;
        }
    }
}
