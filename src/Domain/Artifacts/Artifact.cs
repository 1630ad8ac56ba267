namespace TrainingService.Domain.Artifacts;

/// <summary>One file of a finished attempt, as its manifest lists it.</summary>
public sealed class Artifact
{
    public required Guid Id { get; init; }

    public required Guid JobId { get; init; }

    public required int Attempt { get; init; }

    /// <summary>Path below the attempt, such as <c>adapter/adapter_model.safetensors</c>.</summary>
    public required string Path { get; init; }

    public required long Bytes { get; init; }

    public required string Sha256 { get; init; }

    public required string ContentType { get; init; }

    public required string StorageKey { get; init; }
}
