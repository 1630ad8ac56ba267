using System.ComponentModel;
using TrainingService.Domain.Jobs;
using TrainingService.Training;
using TrainingService.Training.Throughput;

namespace TrainingService.Api.Jobs;

/// <summary>What a run takes of its machine.</summary>
internal sealed record ResourceFigures(
    [property: Description("cpu or cuda.")] string Device,
    Precision Precision,
    [property: Description("Peak of the training process's memory; on a GPU, of the device's.")] long MemoryBytes,
    [property: Description("Size of the saved adapter or model.")] long ArtifactBytes,
    [property: Description("Optimizer steps.")] int? Steps,
    [property: Description("Seconds of the median step; null when it is not known.")] double? SecondsPerStep,
    [property: Description("Seconds of the whole job, all its attempts together; null when it is not known.")] double? Seconds)
{
    public static ResourceFigures From(RunCost cost, double? seconds) => new(
        cost.Device, cost.Precision, cost.MemoryBytes, cost.ArtifactBytes, cost.Steps, Rounded(cost.SecondsPerStep), Rounded(seconds));

    private static double? Rounded(double? seconds) => seconds is { } number ? Math.Round(number, 4) : null;
}

/// <summary>What a job should take, known once its rows are read, and what it took, known when it has succeeded.</summary>
internal sealed record ResourcesResponse(ResourceFigures? Estimate, ResourceFigures? Actual)
{
    public static ResourcesResponse From(TrainingJob job)
    {
        var estimate = job.EstimatedCostJson is { } expected ? Pace.Read(expected) : null;
        return new(
            estimate is null ? null : ResourceFigures.From(estimate, estimate.Seconds),
            job.ActualCostJson is { } measured ? ResourceFigures.From(Pace.Read(measured), job.RunSeconds) : null);
    }
}
