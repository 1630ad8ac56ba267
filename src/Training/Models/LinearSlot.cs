using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>The place of one linear layer in a model. An adapter puts its own module there; the model does not notice.</summary>
public sealed class LinearSlot
{
    private readonly nn.Module _owner;
    private readonly string _child;

    internal LinearSlot(string name, nn.Module owner, string child, Linear layer)
    {
        Name = name;
        Base = layer;
        Module = layer;
        _owner = owner;
        _child = child;
    }

    /// <summary>Name in checkpoints without <c>.weight</c>, such as <c>model.layers.0.self_attn.q_proj</c>.</summary>
    public string Name { get; }

    /// <summary>The layer that the model was made with. The model keeps owning it, whatever stands in the slot.</summary>
    public Linear Base { get; }

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

    /// <summary>Runs whatever stands in the slot.</summary>
    internal Tensor Run(Tensor input) => Module.call(input);
}
