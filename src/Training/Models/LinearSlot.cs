using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>The place of one linear layer in a model. An adapter puts its own module there; the model does not notice.</summary>
public sealed class LinearSlot
{
    private readonly nn.Module _owner;
    private readonly string _child;

    internal LinearSlot(string name, nn.Module owner, string child, nn.Module<Tensor, Tensor> layer)
    {
        Name = name;
        Base = layer;
        Module = layer;
        _owner = owner;
        _child = child;
    }

    /// <summary>Name in checkpoints without <c>.weight</c>, such as <c>model.layers.0.self_attn.q_proj</c>.</summary>
    public string Name { get; }

    /// <summary>The model's own layer: a <see cref="Linear"/>, or one with a quantised weight. The model keeps owning it, whatever stands in the slot.</summary>
    public nn.Module<Tensor, Tensor> Base { get; private set; }

    /// <summary>
    /// Reads the weight of a quantised layer as the checkpoint has it, [out, in], float32, a new tensor in the caller's dispose scope; null where the
    /// model came from no folder or its weights are plain numbers.
    /// </summary>
    internal Func<Tensor>? ReadOriginal { get; set; }

    /// <summary>What runs, inputs [.., in] to outputs [.., out]. Setting it changes the running model; the module that leaves is not disposed.</summary>
    public nn.Module<Tensor, Tensor> Module
    {
        get;
        set
        {
            if (field is not null)
            {
                _owner.register_module(_child, null!);   // null takes a name out; a second registration would throw
                _owner.register_module(_child, value);
            }

            field = value;
        }
    }

    /// <summary>Gives the model another layer of its own in this place, and runs it unless an adapter's runs. The old one is not disposed.</summary>
    internal void Rebase(nn.Module<Tensor, Tensor> layer)
    {
        var runs = ReferenceEquals(Module, Base);
        Base = layer;
        if (runs)
        {
            Module = layer;
        }
    }

    /// <summary>Runs whatever stands in the slot.</summary>
    internal Tensor Run(Tensor input) => Module.call(input);

    /// <summary>Runs what stands in slots that read the same input, in one call where it knows how.</summary>
    /// <returns>One output per slot, in the caller's dispose scope.</returns>
    internal static IReadOnlyList<Tensor> Run(Tensor input, params IReadOnlyList<LinearSlot> slots)
    {
        var together = slots[0].Module is ISharesInput first ? first.RunTogether(input, [.. slots.Select(slot => slot.Module)]) : null;
        return together ?? [.. slots.Select(slot => slot.Run(input))];
    }
}
