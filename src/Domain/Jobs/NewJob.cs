namespace TrainingService.Domain.Jobs;

/// <summary>What is asked of <see cref="TrainingJob.Submit"/>.</summary>
public sealed record NewJob
{
    public required Guid ProjectId { get; init; }

    public required string SpecJson { get; init; }

    public required string RequestJson { get; init; }

    public required string Model { get; init; }

    public string? Suffix { get; init; }

    public string? MetadataJson { get; init; }

    public int Priority { get; init; }

    public int? MaxRunSeconds { get; init; }
}
