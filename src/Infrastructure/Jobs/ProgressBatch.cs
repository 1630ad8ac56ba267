using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Jobs;

/// <summary>A line for a job's story.</summary>
public sealed record EventLine(EventLevel Level, string Type, string Message, string? DataJson, DateTimeOffset At)
{
    /// <summary>Given once: a write whose answer was lost is recognised by it.</summary>
    public Guid Id { get; } = Guid.CreateVersion7(At);
}

/// <summary>Figures of one step.</summary>
/// <param name="Kind"><c>train</c> or <c>eval</c>.</param>
/// <param name="ValuesJson">JSON object of names and numbers.</param>
public sealed record MetricLine(int Step, string Kind, string ValuesJson, DateTimeOffset At);

/// <summary>What a run has reported since the last write. Null: as before.</summary>
public sealed record ProgressBatch
{
    public string? Phase { get; init; }

    public int? Step { get; init; }

    public int? TotalSteps { get; init; }

    public long? TrainedTokens { get; init; }

    /// <summary>What the run should take, as JSON.</summary>
    public string? EstimatedCostJson { get; init; }

    public IReadOnlyList<EventLine> Events { get; init; } = [];

    public IReadOnlyList<MetricLine> Metrics { get; init; } = [];
}
