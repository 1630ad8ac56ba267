using System.ComponentModel;
using System.Text.Json.Serialization;
using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>Which weights of the base model move, and in which form.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(FullConfig), "full")]
[JsonDerivedType(typeof(LoraConfig), "lora")]
public abstract record AdapterConfig
{
    [Description("Saved adapter to start from: an id of a fine-tuned model, or a local folder for the command line; null: start at the base model.")]
    public string? From { get; init; }

    /// <summary>Attaches the trainable counterpart of this choice to a model whose weights are all frozen.</summary>
    /// <param name="seed">Seed of the initial values; the same seed gives the same bytes on every device.</param>
    /// <exception cref="TrainingException">The choice does not fit the model, or <see cref="From"/> cannot be used.</exception>
    public abstract Adapter Attach(CausalLm model, int seed);

    /// <summary>What is wrong with this config for a model, all of it at once; nothing is loaded.</summary>
    public virtual IReadOnlyList<SpecError> Check(ModelConfig model) => [];

    /// <summary>The tensors that would train in a model that <see cref="Check"/> has nothing against; nothing is loaded.</summary>
    public abstract IReadOnlyList<TrainedShape> Trained(ModelConfig model);

    /// <summary>How many numbers would train.</summary>
    public TrainedCounts Count(ModelConfig model)
    {
        var added = Trained(model).ToLookup(tensor => tensor.IsAdded, tensor => tensor.Count);
        return new(Added: added[true].Sum(), InPlace: added[false].Sum());
    }
}
