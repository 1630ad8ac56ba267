using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Low-rank factors beside chosen linear layers of a running model, and the weights that train with them.</summary>
internal sealed class LoraAdapter : Adapter
{
    private readonly LoraConfig _config;
    private readonly CausalLm _model;
    private readonly List<(LinearSlot Slot, LoraLinear Layer, SelectedLinear Plan)> _layers = [];
    private readonly List<TrainableTensor> _trainable = [];
    private bool _merged;

    public LoraAdapter(CausalLm model, LoraConfig config, LoraPlan plan, int seed)
    {
        if (model.Quantization is not null && QuantizedBase.Trained(plan, model.Config) is { Count: > 0 } trained)
        {
            throw TrainingException.InvalidSpec(QuantizedBase.RefusesTrained(trained[0]), "adapter.modules_to_save");
        }

        _config = config;
        _model = model;
        var weights = model.NamedWeights().ToDictionary(weight => weight.Name, weight => weight.Parameter);
        var slots = model.Linears.ToDictionary(slot => slot.Name);

        // One stream of numbers on the CPU for all layers in order: the same start on every device.
        using var generator = new Generator((ulong)seed, CPU);
        foreach (var layer in plan.Layers)
        {
            var slot = slots[layer.Name];
            var lora = new LoraLinear(
                slot.Module, InitialA(layer, generator, model.Device), layer.Out, layer.Scale, config.Dropout);
            slot.Module = lora;
            _layers.Add((slot, lora, layer));
            var prefix = PeftFolder.KeyPrefix + layer.Name;
            _trainable.Add(new TrainableTensor(prefix + ".lora_A.weight", lora.lora_A));
            _trainable.Add(new TrainableTensor(prefix + ".lora_B.weight", lora.lora_B) { Role = TensorRole.OutputFactor });
        }

        var roles = model.Config.Weights.ToDictionary(weight => weight.Name, TrainedShape.RoleOf);
        var adapted = plan.Layers.Select(layer => layer.Name).ToHashSet();
        foreach (var name in plan.Biases.Concat(plan.FullWeights))
        {
            weights[name].requires_grad = true;
            var module = name[..name.LastIndexOf('.')];
            _trainable.Add(new TrainableTensor(
                PeftFolder.KeyPrefix + (adapted.Contains(module) ? module + ".base_layer.bias" : name), weights[name])
            { Role = roles[name] });
        }
    }

    public override IReadOnlyList<TrainableTensor> Trainable => _trainable;

    public override IReadOnlyList<LayerUpdate> Updates => _layers
        .ConvertAll(layer => new LayerUpdate(
            layer.Plan.Name, () => WeightOf(layer.Slot), new LowRankFactors(layer.Layer.lora_B, layer.Layer.lora_A, layer.Layer.Scale)));

    public override QuantizationConfig? Quantization => _model.Quantization;

    public override void SetTraining(bool training)
    {
        foreach (var (_, layer, _) in _layers)
        {
            layer.train(training);
        }
    }

    public override void Save(string folder, ModelCard card)
    {
        ObjectDisposedException.ThrowIf(_merged, this);
        PeftFolder.Write(folder, _config, _model.Config, _trainable, card);
        QuantizedBase.Write(folder, _model.Quantization);
    }

    public override void Load(string folder) => PeftFolder.Open(folder).CopyInto(_trainable, _config.Bias);

    public override void MergeIntoModel()
    {
        ObjectDisposedException.ThrowIf(_merged, this);
        using var off = no_grad();
        var updates = Updates;
        Detach();
        foreach (var ((slot, _, _), update) in _layers.Zip(updates))
        {
            using var scope = NewDisposeScope();
            _model.SetWeight(slot, Merge(update));
        }

        _merged = true;
    }

    protected override void Dispose(bool disposing)
    {
        if (!disposing)
        {
            return;
        }

        Detach();
        foreach (var (_, layer, _) in _layers)
        {
            layer.Dispose();
        }

        _layers.Clear();
        foreach (var trained in _trainable.Where(tensor => !tensor.Parameter.IsInvalid))
        {
            trained.Parameter.requires_grad = false;
        }

        _trainable.Clear();
    }

    private static Tensor WeightOf(LinearSlot slot) => slot.Base switch
    {
        QuantizedLinear quantized => quantized.Weight.Dequantize(ScalarType.Float32),
        var plain => ((Models.Linear)plain).weight,
    };

    private void Detach()
    {
        foreach (var (slot, layer, _) in _layers)
        {
            slot.Module = layer.BaseLayer;
        }
    }

    // Kaiming's uniform initialisation with a = √5 is U(-1/√in, 1/√in).
    private static Tensor InitialA(SelectedLinear layer, Generator generator, Device device)
    {
        using var scope = NewDisposeScope();
        var bound = 1 / Math.Sqrt(layer.In);
        return rand(layer.Rank, layer.In, dtype: ScalarType.Float32, device: CPU, generator: generator)
            .mul(2 * bound).sub(bound).to(device).MoveToOuterDisposeScope();
    }
}
