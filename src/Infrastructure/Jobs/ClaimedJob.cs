namespace TrainingService.Infrastructure.Jobs;

/// <summary>What a claim tells the worker of its job.</summary>
internal sealed record ClaimedJob(
    Guid JobId, Guid ProjectId, int Attempt, long LeaseToken, int FailureCount, double RunSeconds, int? MaxRunSeconds, long EventSequence,
    long NowMicroseconds)
{
    /// <summary>The database's time at the claim.</summary>
    public DateTimeOffset Now => Data.UnixMicroseconds.ToTime(NowMicroseconds);
}
