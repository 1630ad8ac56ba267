namespace TrainingService.Domain.Jobs;

/// <summary>The courier: tells workers that a job waits. Losing a message loses no job.</summary>
public interface IJobQueue
{
    void Wake(Guid jobId);

    /// <summary>Messages that no worker has taken yet.</summary>
    long CountWaiting();
}
