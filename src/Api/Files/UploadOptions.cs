using System.ComponentModel.DataAnnotations;

namespace TrainingService.Api.Files;

/// <summary>What clients may upload.</summary>
internal sealed record UploadOptions
{
    public const string Section = "Files";

    /// <summary>Bytes that a data file may have.</summary>
    [Range(1, long.MaxValue)]
    public long LargestFileBytes { get; init; } = 8L << 30;

    /// <summary>Bytes that one part of an upload may have.</summary>
    [Range(1, 1 << 30)]
    public long LargestPartBytes { get; init; } = 64 << 20;

    /// <summary>Minutes after its creation in which an upload must be completed.</summary>
    [Range(1, 10_080)]
    public double UploadLifetimeMinutes { get; init; } = 60;

    /// <summary>Bytes that a JSON body may have.</summary>
    [Range(1024, long.MaxValue)]
    public long LargestJsonBytes { get; init; } = 4 << 20;
}
