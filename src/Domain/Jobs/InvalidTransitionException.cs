namespace TrainingService.Domain.Jobs;

/// <summary>A move was asked for that the life of a job does not allow.</summary>
public sealed class InvalidTransitionException(Guid jobId, JobStatus from, JobStatus to) : DomainException(
    "job.invalid_transition",
    $"Job {PublicId.Of(PublicId.Job, jobId)} is {from.ToString().ToLowerInvariant()} and cannot become {to.ToString().ToLowerInvariant()}.");
