using System.ComponentModel.DataAnnotations;

namespace TrainingService.Api.Jobs;

/// <summary>Which jobs are taken.</summary>
internal sealed record JobOptions
{
    public const string Section = "Jobs";

    /// <summary>Bytes of memory that a job may need for weights, gradients and optimizer together, as estimated, before any row is read.</summary>
    [Range(1, long.MaxValue)]
    public long LargestEstimateBytes { get; init; } = 1L << 40;
}
