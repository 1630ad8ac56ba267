using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>A decoder that predicts the next token. Its weights do not train until an adapter switches on what does.</summary>
public abstract class CausalLm : nn.Module
{
    private readonly Dictionary<string, Parameter> _weights = new(StringComparer.Ordinal);
    private readonly Parameter _first;
    private readonly Dictionary<string, QuantizedTensor> _codes = new(StringComparer.Ordinal);   // until its layer takes each over

    /// <summary>Makes every weight of <paramref name="config"/>, in its order.</summary>
    /// <param name="source">Gives each weight as a new tensor; the model takes ownership.</param>
    /// <param name="quantization">Turns the weights that it covers into codes, each before the next one is asked for; null: none.</param>
    private protected CausalLm(ModelConfig config, string className, WeightSource source, QuantizationConfig? quantization = null)
        : base(className)
    {
        Config = config;
        Quantization = quantization;
        foreach (var weight in config.Weights)
        {
            using var scope = NewDisposeScope();
            if (quantization is not null && QuantizationConfig.Covers(weight))
            {
                _codes.Add(weight.Name, quantization.Quantize(source(weight), weight.Name));
            }
            else
            {
                Own(weight.Name, source(weight));
            }
        }

        _first = _weights[config.Weights[0].Name];   // the embedding, which is never in codes
    }

    public ModelConfig Config { get; }

    /// <summary>How the weights of the linear layers are held; null: as plain numbers.</summary>
    public QuantizationConfig? Quantization { get; private set; }

    /// <summary>Format of the weights that are plain numbers, and of the arithmetic.</summary>
    public ScalarType DType => _first.dtype;

    /// <summary>Where the weights are.</summary>
    public Device Device => _first.device;

    /// <summary>Every linear layer but the output head, in the order of the network.</summary>
    public abstract IReadOnlyList<LinearSlot> Linears { get; }

    /// <summary>Reads a Hugging Face folder: <c>config.json</c> and safetensors.</summary>
    /// <remarks>On a CPU, weights that the file holds in <paramref name="dtype"/> stay where they are: in memory that processes share.</remarks>
    /// <param name="folder">A local folder.</param>
    /// <param name="dtype">Format of the weights in memory.</param>
    /// <param name="quantization">
    /// Holds the linear layers in codes. Each weight is quantised as it is read, from float32, so that there is never more than one in full.
    /// </param>
    /// <param name="score">Takes the place of the output head; null: as <c>config.json</c> says.</param>
    /// <param name="seed">Of the weights of a score head that the folder lacks.</param>
    /// <param name="ct">Asked before each weight.</param>
    /// <exception cref="TrainingException">A missing or surplus tensor, a wrong shape, or a setting that is not implemented.</exception>
    public static CausalLm Load(
        string folder, ScalarType dtype, Device device, QuantizationConfig? quantization = null, ScoreHead? score = null, long seed = 0,
        CancellationToken ct = default)
    {
        var read = HuggingFaceFolder.ReadConfig(folder);
        var config = score is null ? read : read with { Score = score };
        using var checkpoint = CheckpointFolder.Open(folder);
        var names = CheckpointNames.Match(config, checkpoint);
        RefuseDifferentHead(config, checkpoint, names);
        var model = config.Build(
            weight =>
            {
                ct.ThrowIfCancellationRequested();
                if (ScoreHead.Owns(weight.Name))
                {
                    return names.TryGetValue(weight.Name, out var stored)
                        ? checkpoint.Read(stored, ScalarType.Float32, device)
                        : config.Score!.New(weight, seed).to(device);
                }

                var covered = quantization is not null && QuantizationConfig.Covers(weight);
                return covered
                    ? checkpoint.Read(names[weight.Name], ScalarType.Float32, device)
                    : checkpoint.Share(names[weight.Name], dtype, device);
            },
            quantization);
        foreach (var slot in model.Linears.Where(slot => slot.Base is QuantizedLinear))
        {
            var name = names[slot.Name + ".weight"];
            slot.ReadOriginal = () =>
            {
                using var again = CheckpointFolder.Open(folder);
                return again.Read(name, ScalarType.Float32, device);
            };
        }

        return model;
    }

    /// <summary>A new model: normal weights with the configured deviation, norms one, biases zero.</summary>
    /// <param name="seed">The same seed gives the same weights, on any device.</param>
    public static CausalLm Create(ModelConfig config, ScalarType dtype, Device device, long seed, CancellationToken ct = default)
    {
        using var generator = new Generator((ulong)seed, CPU);
        return config.Build(weight =>
        {
            ct.ThrowIfCancellationRequested();
            return ScoreHead.Owns(weight.Name)
                ? config.Score!.New(weight, seed).to(device)
                : NewWeight(weight, config.InitializerRange, generator).to(dtype, device);
        });
    }

    /// <summary>Scores of the next token.</summary>
    /// <param name="inputIds">[B, T], int64.</param>
    /// <param name="positions">[B, T], int64, each below T: positions start anew at zero in every packed example.</param>
    /// <param name="segments">
    /// [B, T], int32: a token sees the tokens before it with its own number; 0 is padding, which sees only itself. Null when each row holds
    /// one example, padded at its end: causality then keeps padding out of every real token.
    /// </param>
    /// <returns>Logits [B, T, V] in the weights' format, in the caller's dispose scope.</returns>
    public Tensor Forward(Tensor inputIds, Tensor positions, Tensor? segments = null)
    {
        using var scope = NewDisposeScope();
        return Head(HiddenStates(inputIds, positions, segments)).MoveToOuterDisposeScope();
    }

    /// <summary>What the output head reads: [B, T, D], after the last norm. Parameters as of <see cref="Forward"/>.</summary>
    public abstract Tensor HiddenStates(Tensor inputIds, Tensor positions, Tensor? segments = null);

    /// <summary>The output head: hidden states [.., D] to logits [.., V], or to scores [.., outputs] where sequences alone are scored.</summary>
    public Tensor Head(Tensor hidden) => Config.PredictsTokens ? nn.functional.linear(hidden, HeadWeight) : Score(hidden);

    /// <summary>Weight of the output head, [V, D], which has no bias; the embedding's own when the head is tied.</summary>
    public abstract Parameter HeadWeight { get; }

    /// <summary>The score head: hidden states [.., D] to scores [.., outputs], float32.</summary>
    /// <exception cref="InvalidOperationException">The model has none.</exception>
    public Tensor Score(Tensor hidden) =>
        (Config.Score ?? throw new InvalidOperationException("The model has no score head.")).Run(hidden, name => _weights[name]);

    /// <summary>Which layers are computed again in the backward pass instead of keeping what it needs.</summary>
    public ActivationCheckpointing Checkpointing { get; set; } = ActivationCheckpointing.Off;

    /// <summary>What the model sees before each row, given by an adapter; null: nothing.</summary>
    internal VirtualTokens? VirtualTokens { get; set; }

    /// <summary>Longest sequence that can be given, in tokens: the model's positions but for those of virtual tokens.</summary>
    public int MostTokens => Config.MaxPositions - (VirtualTokens?.Count ?? 0);

    /// <summary>
    /// The model's own weights that are plain numbers, by checkpoint name, whatever stands in the slots; a tied head once, as the embedding.
    /// </summary>
    public IEnumerable<(string Name, Parameter Parameter)> NamedWeights() => Config.Weights
        .Where(weight => _weights.ContainsKey(weight.Name))
        .Select(weight => (weight.Name, _weights[weight.Name]));

    /// <summary>Overwrites the weight of a linear layer. A quantised one becomes plain numbers, in the model's format.</summary>
    /// <param name="value">[out, in]; stays the caller's.</param>
    internal void SetWeight(LinearSlot slot, Tensor value)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var name = slot.Name + ".weight";
        if (slot.Base is not QuantizedLinear quantized)
        {
            _weights[name].copy_(value);
            return;
        }

        Own(name, value.to(DType, Device, copy: true));
        slot.Rebase(new Linear(_weights[name], quantized.Bias));
        quantized.Dispose();
    }

    /// <summary>Turns every weight that is still in codes into plain numbers, in the model's format.</summary>
    public void Dequantize()
    {
        foreach (var slot in Linears)
        {
            if (slot.Base is QuantizedLinear quantized)
            {
                using var weight = quantized.Weight.Dequantize(ScalarType.Float32);
                SetWeight(slot, weight);
            }
        }

        Quantization = null;
    }

    /// <summary>Makes the linear layer of that name from the weights that were read.</summary>
    private protected nn.Module<Tensor, Tensor> MakeLinear(string name)
    {
        var bias = _weights.GetValueOrDefault($"{name}.bias");
        return _codes.Remove($"{name}.weight", out var codes)
            ? new QuantizedLinear(codes, bias)
            : new Linear(_weights[$"{name}.weight"], bias);
    }

    /// <summary>Hidden states of the tokens that follow those in <paramref name="cache"/>, which is extended by them.</summary>
    /// <param name="positions">[B, T], each below <see cref="MostTokens"/>.</param>
    /// <param name="mask">
    /// [B, 1, T, S], bool: what each new token sees of all that were given so far, itself included; null when there is no padding and T = 1 or
    /// the cache is empty.
    /// </param>
    internal abstract Tensor Continue(Tensor inputIds, Tensor positions, Tensor? mask, KeyValueCache cache);

    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        if (disposing)
        {
            // A layer that an adapter replaced is no longer in the module tree, so its weights are disposed here.
            foreach (var parameter in _weights.Values)
            {
                parameter.Dispose();
            }

            foreach (var slot in Linears.Where(slot => slot.Base is QuantizedLinear))
            {
                slot.Base.Dispose();
            }
        }
    }

    private void Own(string name, Tensor tensor)
    {
        var parameter = new Parameter(tensor, requires_grad: false);
        parameter.DetachFromDisposeScope();
        _weights.Add(name, parameter);
    }

    /// <summary>A tied head that is stored beside the embedding must be the same numbers, or one of the two would be dropped in silence.</summary>
    private static void RefuseDifferentHead(ModelConfig config, CheckpointFolder checkpoint, IReadOnlyDictionary<string, string> names)
    {
        if (!config.TiesHead || !config.PredictsTokens || names.Values.Contains(CheckpointNames.HeadName) || !checkpoint.Entries.ContainsKey(CheckpointNames.HeadName))
        {
            return;
        }

        using var scope = NewDisposeScope();
        var (head, embedding) = (checkpoint.Read(CheckpointNames.HeadName), checkpoint.Read(names[CheckpointNames.Embedding]));
        if (!head.shape.SequenceEqual(embedding.shape) || head.ne(embedding).any().item<bool>())
        {
            throw TrainingException.InvalidData(
                $"config.json ties the head to the embedding, and the checkpoint's {CheckpointNames.HeadName} differs from it; "
                + "set tie_word_embeddings to false.", "config.json:tie_word_embeddings");
        }
    }

    private static Tensor NewWeight(WeightShape weight, double deviation, Generator generator)
    {
        if (weight.Name.EndsWith(".bias", StringComparison.Ordinal))
        {
            return zeros(weight.Shape, ScalarType.Float32);
        }

        return weight.Shape.Length == 1
            ? ones(weight.Shape, ScalarType.Float32)
            : randn(weight.Shape, ScalarType.Float32, generator: generator).mul_(deviation);
    }
}

/// <summary>Gives one weight as a new tensor of the right shape.</summary>
public delegate Tensor WeightSource(WeightShape weight);
