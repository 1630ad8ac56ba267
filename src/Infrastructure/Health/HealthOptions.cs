using System.ComponentModel.DataAnnotations;

namespace TrainingService.Infrastructure.Health;

/// <summary>What <c>/health/ready</c> asks for, in the API and in workers.</summary>
public sealed record HealthOptions
{
    public const string Section = "Health";

    /// <summary>Seconds that one look at the database, the store or the courier may take; a probe waits no longer.</summary>
    [Range(0.1, 60)]
    public double TimeoutSeconds { get; init; } = 3;

    /// <summary>Seconds that a good answer is kept, so that many probes cost one look.</summary>
    [Range(0, 300)]
    public double KeepSeconds { get; init; } = 5;

    /// <summary>Bytes that must be free where data is kept.</summary>
    [Range(0, long.MaxValue)]
    public long LeastFreeBytes { get; init; } = 256L << 20;
}
