namespace TrainingService.Domain.Files;

public enum UploadStatus
{
    /// <summary>Takes parts.</summary>
    Pending,

    /// <summary>Its parts became a file.</summary>
    Completed,

    /// <summary>Given up by its owner.</summary>
    Cancelled,

    /// <summary>Not completed in time.</summary>
    Expired,
}

/// <summary>A file that arrives in parts. Its status changes by conditional updates alone, so that it becomes one file at most.</summary>
public sealed class Upload
{
    public required Guid Id { get; init; }

    public required Guid ProjectId { get; init; }

    /// <summary>Name of the file to be, without folders.</summary>
    public required string FileName { get; init; }

    public required string Purpose { get; init; }

    public string? MimeType { get; init; }

    /// <summary>Length that the file must come to.</summary>
    public required long Bytes { get; init; }

    public required UploadStatus Status { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }

    /// <summary>After this no part is taken and nothing is completed.</summary>
    public required DateTimeOffset ExpiresAt { get; init; }

    /// <summary>Seconds after its creation that the file expires; null: never.</summary>
    public int? FileLifetimeSeconds { get; init; }

    /// <summary>The file that it became; null before that.</summary>
    public Guid? FileId { get; init; }
}

/// <summary>One part, an object of its own until the upload ends. The order of parts is said when the upload is completed.</summary>
public sealed class UploadPart
{
    public required Guid Id { get; init; }

    public required Guid UploadId { get; init; }

    public required long Bytes { get; init; }

    public required string Sha256 { get; init; }

    public required string StorageKey { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }
}
