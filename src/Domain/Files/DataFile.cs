namespace TrainingService.Domain.Files;

/// <summary>An uploaded file. Its bytes are in the artifact store under <see cref="StorageKey"/>; the row is their only index.</summary>
public sealed class DataFile
{
    public required Guid Id { get; init; }

    public required Guid ProjectId { get; init; }

    /// <summary>Name as uploaded, without folders.</summary>
    public required string FileName { get; init; }

    /// <summary><c>fine-tune</c>, <c>fine-tune-results</c>, …</summary>
    public required string Purpose { get; init; }

    public required long Bytes { get; init; }

    public required string Sha256 { get; init; }

    public required string StorageKey { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }

    public DateTimeOffset? ExpiresAt { get; init; }
}
