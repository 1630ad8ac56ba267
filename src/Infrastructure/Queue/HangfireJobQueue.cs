using Hangfire;
using Microsoft.Extensions.Logging;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Queue;

/// <summary>Rings the bell at the workers through Hangfire, in memory or on Postgres.</summary>
public sealed partial class HangfireJobQueue(
    IBackgroundJobClient client, JobStorage storage, ILogger<HangfireJobQueue> logger) : IJobQueue
{
    /// <summary>The only queue that workers listen to.</summary>
    public const string QueueName = "training";

    /// <remarks>The job is saved before it is announced: a courier that is down loses the message, which is sent again, and not the job.</remarks>
    public void Wake(Guid jobId)
    {
        try
        {
            client.Enqueue<ITrainingJobRunner>(runner => runner.RunAsync(jobId, CancellationToken.None));
        }
        catch (BackgroundJobClientException lost)
        {
            WakeUpLost(lost, jobId);
        }
    }

    public long CountWaiting() => storage.GetMonitoringApi().EnqueuedCount(QueueName);

    [LoggerMessage(1, LogLevel.Warning, "The wake-up for job {JobId} was not taken; it will be sent again")]
    private partial void WakeUpLost(Exception exception, Guid jobId);
}
