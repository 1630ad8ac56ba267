using System.Text.Json.Serialization;

namespace TrainingService.Training.Objectives;

/// <summary>What is optimised.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(SftConfig), "sft")]
[JsonDerivedType(typeof(PretrainingConfig), "pretraining")]
public abstract record ObjectiveConfig;
