using TrainingService.Domain;

namespace TrainingService.Infrastructure.Jobs;

/// <summary>A write of an attempt found that the job is not its own any more: stop, and write nothing.</summary>
public sealed class LeaseLostException(Guid jobId, long leaseToken) : DomainException(
    "job.lease_lost",
    $"The lease {leaseToken} of job {PublicId.Of(PublicId.Job, jobId)} is lost: another worker has claimed it, or it was ended.");
