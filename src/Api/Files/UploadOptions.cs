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

    /// <summary>Bytes of rows, unpacked, that a check, a preview or an estimate reads; the report says when there are more.</summary>
    [Range(65_536, long.MaxValue)]
    public long LargestCheckedBytes { get; init; } = 128 << 20;

    /// <summary>Rows that a check, a preview or an estimate reads; the report says when there are more.</summary>
    [Range(1000, 10_000_000)]
    public int MostCheckedRows { get; init; } = 1_000_000;

    /// <summary>Seconds that a check, a preview or an estimate may read; the report says when they were not enough.</summary>
    [Range(1, 3600)]
    public int LongestCheckSeconds { get; init; } = 120;

    /// <summary>Checks, previews and estimates that read rows at the same time. Eight times as many wait; the next is answered 429.</summary>
    [Range(1, 1000)]
    public int ConcurrentChecks { get; init; } = 2;
}
