namespace TrainingService.Domain.Jobs;

/// <summary>How much an event matters.</summary>
public enum EventLevel
{
    Info,
    Warn,
    Error,
}

/// <summary>One line of a job's story, append-only.</summary>
public sealed class JobEvent
{
    public const string MessageType = "message";

    public const string MetricsType = "metrics";

    public required Guid Id { get; init; }

    public required Guid JobId { get; init; }

    /// <summary>Rises by one within a job; the id of a server-sent event.</summary>
    public required long Sequence { get; init; }

    public required EventLevel Level { get; init; }

    /// <summary><c>message</c> or <c>metrics</c>.</summary>
    public required string Type { get; init; }

    public required string Message { get; init; }

    /// <summary>JSON object with the numbers; null when there are none.</summary>
    public string? DataJson { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }
}

/// <summary>The figures of one step: names such as <c>train/loss</c> to numbers, as a JSON object.</summary>
public sealed class JobMetric
{
    public required Guid JobId { get; init; }

    public required int Step { get; init; }

    /// <summary><c>train</c> or <c>eval</c>: a step may have one row of each.</summary>
    public required string Kind { get; init; }

    /// <summary>A later attempt replaces the row of an earlier one.</summary>
    public required int Attempt { get; set; }

    public required string ValuesJson { get; set; }

    public required DateTimeOffset CreatedAt { get; set; }
}

/// <summary>A checkpoint of a job that is complete in the artifact store.</summary>
public sealed class JobCheckpoint
{
    public required Guid Id { get; init; }

    public required Guid JobId { get; init; }

    public required int Attempt { get; init; }

    public required int Step { get; init; }

    /// <summary>Whether its evaluation loss was the lowest when it was saved.</summary>
    public required bool Best { get; init; }

    public required string MetricsJson { get; init; }

    /// <summary>Key prefix of its files; its <c>manifest.json</c> is written last.</summary>
    public required string StoragePrefix { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }
}
