namespace TrainingService.Infrastructure.Jobs;

/// <summary>What the owner of a running job wants of its worker.</summary>
public enum OwnerRequest
{
    None,

    /// <summary>Save a checkpoint, and set the job aside.</summary>
    Pause,

    /// <summary>End the job.</summary>
    Cancel,
}
