namespace TrainingService.Training.Objectives;

/// <summary>Supervised fine-tuning: cross-entropy of the answers (completions, assistant turns) given what stands before them.</summary>
public sealed record SftConfig : ObjectiveConfig;
