namespace TrainingService.Domain.Jobs;

/// <summary>Why a running job goes back to the queue.</summary>
public enum RequeueCause
{
    /// <summary>Its worker gave it back: a shutdown, or a pause that was withdrawn. No failure.</summary>
    HandedOver,

    /// <summary>Its worker's lease ran out.</summary>
    WorkerLost,

    /// <summary>The attempt failed for a reason that another one may not meet.</summary>
    PlatformFailure,
}
