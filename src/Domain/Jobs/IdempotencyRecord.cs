namespace TrainingService.Domain.Jobs;

/// <summary>Remembers what a key was used for, so that a repeated request finds its job again.</summary>
public sealed class IdempotencyRecord
{
    public required Guid ProjectId { get; init; }

    public required string Key { get; init; }

    /// <summary>Hash of method, path and body.</summary>
    public required string RequestHash { get; init; }

    public required Guid JobId { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }
}
