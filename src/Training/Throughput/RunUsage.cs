namespace TrainingService.Training.Throughput;

/// <summary>What a run took of its machine.</summary>
/// <param name="MemoryAtStartBytes">Resident memory of the process before it loaded the model: the runtime, libtorch and the rows.</param>
/// <param name="MemoryPeakBytes">Most resident memory that the process ever had.</param>
/// <param name="SecondsPerStep">Median time of a step, evaluations and checkpoints left out; null when it took one step or none.</param>
public sealed record RunUsage(long MemoryAtStartBytes, long MemoryPeakBytes, double? SecondsPerStep);
