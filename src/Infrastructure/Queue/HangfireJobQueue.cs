using Hangfire;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Queue;

/// <summary>Rings the bell at the workers through Hangfire, in memory or on Postgres.</summary>
public sealed class HangfireJobQueue(IBackgroundJobClient client, JobStorage storage) : IJobQueue
{
    /// <summary>The only queue that workers listen to.</summary>
    public const string QueueName = "training";

    public void Wake(Guid jobId) => client.Enqueue<ITrainingJobRunner>(runner => runner.RunAsync(jobId, CancellationToken.None));

    public long CountWaiting() => storage.GetMonitoringApi().EnqueuedCount(QueueName);
}
