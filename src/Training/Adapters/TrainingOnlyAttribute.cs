namespace TrainingService.Training.Adapters;

/// <summary>Marks a member that shapes the training and not the saved adapter: a run that starts from one may set it anew.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class TrainingOnlyAttribute : Attribute;
