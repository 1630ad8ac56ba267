using System.ComponentModel.DataAnnotations;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Section <c>StoreSweep</c>: the clean-up of the artifact store.</summary>
public sealed record StoreSweepOptions
{
    public const string Section = "StoreSweep";

    /// <summary>Minutes between two passes.</summary>
    [Range(0.01, 43_200)]
    public double IntervalMinutes { get; init; } = 60;

    /// <summary>Hours for which nothing in the store is touched after it was written, since its row may be on its way.</summary>
    [Range(0, 8760)]
    public double GraceHours { get; init; } = 24;
}
