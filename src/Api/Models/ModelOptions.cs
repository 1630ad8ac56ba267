using System.ComponentModel.DataAnnotations;

namespace TrainingService.Api.Models;

/// <summary>From where base models may come.</summary>
internal sealed record ModelOptions
{
    public const string Section = "Models";

    /// <summary>Folders below which a model may be registered by path. On the embedded profile an empty list means any folder.</summary>
    public IReadOnlyList<string> Roots { get; init; } = [];

    /// <summary>Bytes that an uploaded archive may have, and its content when unpacked.</summary>
    [Range(1, long.MaxValue)]
    public long LargestArchiveBytes { get; init; } = 64L << 30;

    /// <summary>Files that an archive may hold.</summary>
    [Range(1, 1_000_000)]
    public int MostArchiveFiles { get; init; } = 10_000;
}
