namespace TrainingService.Domain.Jobs;

/// <summary>Where a job stands.</summary>
public enum JobStatus
{
    /// <summary>Waits for a worker.</summary>
    Queued,

    /// <summary>A worker holds its lease.</summary>
    Running,

    /// <summary>Set aside by its owner; a checkpoint is saved.</summary>
    Paused,

    /// <summary>Its owner asked for the end; the worker has yet to obey.</summary>
    Cancelling,

    Succeeded,
    Failed,
    Cancelled,
}
