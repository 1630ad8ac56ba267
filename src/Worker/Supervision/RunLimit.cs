using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.Worker.Supervision;

/// <summary>How long a job may run in all its attempts together, and who says so.</summary>
internal sealed record RunLimit(double Seconds, bool OfJob)
{
    /// <summary>The smaller of what the job and the operator allow; null: any time.</summary>
    public static RunLimit? Of(JobLease lease, WorkerOptions options) => (lease.MaxRunSeconds, options.MaxRunSeconds) switch
    {
        (null, null) => null,
        ({ } own, null) => new RunLimit(own, OfJob: true),
        (null, { } service) => new RunLimit(service, OfJob: false),
        ({ } own, { } service) => own <= service ? new RunLimit(own, OfJob: true) : new RunLimit(service, OfJob: false),
    };

    public JobFailure ToFailure() => OfJob
        ? new JobFailure(
            FailureCodes.Timeout,
            FormattableString.Invariant($"The job ran for longer than its max_run_seconds of {Seconds} s; give it more, or train fewer steps."),
            "max_run_seconds",
            null)
        : new JobFailure(
            FailureCodes.Timeout,
            FormattableString.Invariant($"The job ran for longer than the {Seconds} s that this service allows; train fewer steps, or ask the operator for more."),
            "schedule",
            null);
}
