namespace TrainingService.Domain.Jobs;

/// <summary>The last lines that a job's training process has written to its log; replaced as they grow. The whole log is an artifact of the ended job.</summary>
public sealed class JobLog
{
    public required Guid JobId { get; init; }

    /// <summary>The attempt that wrote them.</summary>
    public required int Attempt { get; init; }

    public required string Text { get; init; }
}
