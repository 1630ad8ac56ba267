using TrainingService.Domain.Artifacts;
using TrainingService.Training;
using TrainingService.Training.Throughput;

namespace TrainingService.Worker.Supervision;

/// <summary>Puts what a run took in the words of its estimate.</summary>
internal static class RunCosts
{
    /// <returns>As stored with the job; null when the process gave no estimate or no usage, as those of an older program.</returns>
    public static string? Of(RunCost? estimate, DoneReport done, IReadOnlyList<Artifact> artifacts)
    {
        if (estimate is null || done.Usage is not { } usage)
        {
            return null;
        }

        var weights = artifacts.Where(artifact =>
            artifact.Path.StartsWith("adapter/", StringComparison.Ordinal) || artifact.Path.StartsWith("model/", StringComparison.Ordinal));
        return Pace.Write(estimate with
        {
            MemoryBytes = usage.DeviceMemoryPeakBytes ?? usage.MemoryPeakBytes,
            ArtifactBytes = weights.Sum(artifact => artifact.Bytes),
            Steps = done.Steps,
            SecondsPerStep = usage.SecondsPerStep,
            Seconds = null,   // of all attempts together; the job's row counts them
        });
    }
}
