using TorchSharp.Modules;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>What a method's layer is built around.</summary>
/// <param name="Slot">The layer's place in the model.</param>
/// <param name="Tensors">The tensors of <see cref="LayerAdapterConfig.TensorsOf"/> by name, float32; the layer takes them over.</param>
/// <param name="Shared">The tensors of <see cref="LayerAdapterConfig.SharedBy"/> by name; the adapter owns them.</param>
/// <param name="Quantization">How the layer's weight is held; null: as plain numbers.</param>
internal sealed record LayerParts(
    LinearSlot Slot, LinearShape Shape, IReadOnlyDictionary<string, Parameter> Tensors, IReadOnlyDictionary<string, Tensor> Shared,
    QuantizationConfig? Quantization = null);

/// <summary>What first values are made from.</summary>
/// <param name="Random">On the CPU, one stream for all layers in order: the same start on every device.</param>
/// <param name="Measured">What <see cref="LayerAdapterConfig.Measure"/> gave; the tensors belong to its caller.</param>
internal sealed record AdapterStart(Generator Random, IReadOnlyDictionary<string, Tensor> Measured);

/// <summary>A linear layer with a method's update: y = base(x) + x·ΔWᵀ.</summary>
/// <remarks>The frozen layer is not registered as a child: it belongs to the model and outlives this one.</remarks>
internal abstract class AdaptedLinear : nn.Module<Tensor, Tensor>
{
    private readonly LayerParts _parts;

    protected AdaptedLinear(LayerParts parts)
        : base(nameof(AdaptedLinear))
    {
        _parts = parts;
        foreach (var (name, tensor) in parts.Tensors)
        {
            register_parameter(name.Replace('.', '_'), tensor);   // a dot would be a path
        }
    }

    public LinearShape Shape => _parts.Shape;

    /// <summary>The frozen layer beside which the update runs: the model's own, for most methods.</summary>
    public virtual nn.Module<Tensor, Tensor> BaseLayer => ModelLayer;

    /// <summary>The model's own layer.</summary>
    protected nn.Module<Tensor, Tensor> ModelLayer => _parts.Slot.Base;

    /// <summary>ΔW as a product of thin matrices; null where it is none.</summary>
    /// <returns>The layer's own tensors, or new ones in the caller's dispose scope.</returns>
    public virtual LowRankFactors? Factors => null;

    /// <summary>ΔW, [out, in], float32, with its graph, in the caller's dispose scope.</summary>
    public abstract Tensor Delta();

    /// <summary>Gives the tensors their first values. They hold zeros until then. Gradients are off.</summary>
    public virtual void Initialise(AdapterStart start)
    {
    }

    /// <summary>Called whenever the tensors were given values from outside: by <see cref="Initialise"/>, a saved folder, a checkpoint.</summary>
    public virtual void Settle()
    {
    }

    /// <summary>What is written to the file for this layer, and how it is read again.</summary>
    public virtual IEnumerable<SavedTensor> Saved => _parts.Tensors.Select(tensor => SavedTensor.Of(tensor.Key, tensor.Value));

    /// <summary>Folds what the method does to the model's own bias into it, in place; nothing, for most methods. Gradients are off.</summary>
    public virtual void MergeBias()
    {
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        return (BaseLayer.forward(x) + nn.functional.linear(x, Delta().to(x.dtype))).MoveToOuterDisposeScope();
    }

    /// <summary>What the model's own layer gives, by the same products as in <see cref="forward"/> where one of a frozen weight is part of it.</summary>
    /// <returns>[.., out], without gradient, in the caller's dispose scope.</returns>
    public virtual Tensor RunWithoutUpdate(Tensor x) => ModelLayer.forward(x);

    /// <summary>W of the model's own layer, [out, in], float32, without gradient, in the caller's dispose scope.</summary>
    public Tensor FrozenWeight() => WeightOf(_parts.Slot.Base).to_type(ScalarType.Float32);

    /// <summary>W of a layer of the model as it is held; a quantised one is dequantised into a new float32 tensor in the caller's dispose scope.</summary>
    public static Tensor WeightOf(nn.Module<Tensor, Tensor> layer) => layer switch
    {
        QuantizedLinear quantized => quantized.Weight.Dequantize(ScalarType.Float32),
        var plain => ((Models.Linear)plain).weight,
    };

    /// <summary>How the weight of the model's own layer is held; null: as plain numbers.</summary>
    protected QuantizationConfig? Quantization => _parts.Quantization;

    /// <summary>W before it was quantised, [out, in], float32, in the caller's dispose scope: read again, so that no layer is kept in full.</summary>
    protected Tensor OriginalWeight() => OriginalWeight(_parts.Slot);

    /// <inheritdoc cref="OriginalWeight()"/>
    public static Tensor OriginalWeight(LinearSlot slot) => slot.Base is not QuantizedLinear
        ? WeightOf(slot.Base).to_type(ScalarType.Float32)
        : slot.ReadOriginal?.Invoke() ?? throw new InvalidOperationException($"{slot.Name} was quantised without a folder to read it from again.");

    /// <summary>Gives the model's quantised layer another weight; the codes that were there are gone.</summary>
    /// <param name="weight">[out, in]; taken over.</param>
    protected void Rebase(QuantizedTensor weight) => ((QuantizedLinear)_parts.Slot.Base).Weight = weight;

    /// <summary>The bias of the model's own layer; null for none.</summary>
    protected Tensor? FrozenBias => _parts.Slot.Base switch
    {
        QuantizedLinear quantized => quantized.Bias,
        var plain => ((Models.Linear)plain).bias,
    };

    protected Parameter Own(string name) => _parts.Tensors[name];

    protected Tensor Shared(string name) => _parts.Shared[name];
}
