namespace TrainingService.Training.Throughput;

/// <summary>What a run took of its machine.</summary>
/// <param name="MemoryAtStartBytes">Resident memory of the process before it loaded the model: the runtime, libtorch and the rows.</param>
/// <param name="MemoryPeakBytes">Most resident memory that the process ever had.</param>
/// <param name="SecondsPerStep">Median time of a step, evaluations and checkpoints left out; null when it took one step or none.</param>
/// <param name="DeviceMemoryPeakBytes">Most memory of the GPU that was in use after a step, by its driver and for all processes; null on a CPU.</param>
public sealed record RunUsage(long MemoryAtStartBytes, long MemoryPeakBytes, double? SecondsPerStep = null, long? DeviceMemoryPeakBytes = null);
