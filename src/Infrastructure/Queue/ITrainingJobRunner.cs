using Hangfire;

namespace TrainingService.Infrastructure.Queue;

/// <summary>What Hangfire stores. Renaming the type or the method breaks wake-ups that are already queued.</summary>
public interface ITrainingJobRunner
{
    /// <summary>Claims and runs the best waiting jobs, whichever they are; <paramref name="jobId"/> only tells which one rang.</summary>
    [AutomaticRetry(Attempts = 0)]   // the default is ten; another attempt is the domain's decision
    [Queue(HangfireJobQueue.QueueName)]
    Task RunAsync(Guid jobId, CancellationToken cancellationToken);
}
