namespace TrainingService.Training.Adapters;

/// <summary>Full fine-tuning: every weight of the model moves.</summary>
[Method(
    "Full fine-tuning",
    "Every weight of the model moves.",
    "Small models, pretraining, and tasks far from what the base model knows; needs memory for gradients and optimizer state of every weight.")]
public sealed record FullConfig : AdapterConfig;
