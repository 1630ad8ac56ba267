using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;

namespace TrainingService.Worker.Supervision;

/// <summary>What an attempt has come to, before the job knows of it.</summary>
internal abstract record Outcome
{
    /// <summary>The run is complete and stored.</summary>
    /// <param name="CostJson">What it took; null when its process did not say.</param>
    public sealed record Complete(string Model, IReadOnlyList<Artifact> Artifacts, DataFile? Results, string? CostJson) : Outcome;

    /// <param name="Failure">Why there is no result.</param>
    public sealed record Broken(JobFailure Failure) : Outcome;

    /// <summary>Stopped as asked before its end.</summary>
    /// <param name="Warning">What its owner should know of the place from which it will go on; null: nothing.</param>
    public sealed record Stopped(string? Warning) : Outcome;
}
