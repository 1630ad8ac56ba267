namespace TrainingService.Training.Throughput;

/// <summary>What a run takes of its machine: estimated when its rows are known, and measured when it is done.</summary>
/// <param name="Device"><c>cpu</c> or <c>cuda</c>.</param>
/// <param name="Precision">float32 or bfloat16.</param>
/// <param name="MemoryBytes">Peak of the training process's resident memory; on a GPU, of the device's.</param>
/// <param name="ArtifactBytes">Of the saved adapter or model.</param>
/// <param name="Steps">Optimizer steps; null when they are not known yet.</param>
/// <param name="OperationsPerStep">As <see cref="StepOperations"/> counts them.</param>
/// <param name="SecondsPerStep">Null when nothing like it has run yet.</param>
/// <param name="Seconds">Of the whole run: files fetched, rows tokenised, steps, evaluations, artifacts stored.</param>
public sealed record RunCost(
    string Device, Precision Precision, long MemoryBytes, long ArtifactBytes, int? Steps, double OperationsPerStep,
    double? SecondsPerStep = null, double? Seconds = null);
