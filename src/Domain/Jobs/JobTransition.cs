namespace TrainingService.Domain.Jobs;

/// <summary>One move of a job, kept for ever.</summary>
public sealed class JobTransition
{
    /// <summary>One-based place in the job's history.</summary>
    public required int Ordinal { get; init; }

    public required JobStatus Status { get; init; }

    public required DateTimeOffset At { get; init; }

    public string? Reason { get; init; }
}
