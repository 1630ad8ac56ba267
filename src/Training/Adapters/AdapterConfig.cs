using System.ComponentModel;
using System.Text.Json.Serialization;

namespace TrainingService.Training.Adapters;

/// <summary>Which weights of the base model move, and in which form.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(FullConfig), "full")]
[JsonDerivedType(typeof(LoraConfig), "lora")]
public abstract record AdapterConfig
{
    [Description("Saved adapter to start from: an id of a fine-tuned model, or a local folder for the command line; null: start at the base model.")]
    public string? From { get; init; }
}
