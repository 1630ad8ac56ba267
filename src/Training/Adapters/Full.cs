namespace TrainingService.Training.Adapters;

/// <summary>Full fine-tuning: every weight of the model moves.</summary>
public sealed record FullConfig : AdapterConfig;
