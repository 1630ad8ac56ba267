namespace TrainingService.Training.Objectives;

/// <summary>Language modelling: cross-entropy of every token given the tokens before it.</summary>
public sealed record PretrainingConfig : ObjectiveConfig;
