using System.ComponentModel;
using System.Text.Json;
using TrainingService.Api.Http;
using TrainingService.Domain;
using TrainingService.Domain.Jobs;

namespace TrainingService.Api.Jobs;

/// <summary>How far a run is.</summary>
internal sealed record ProgressResponse(
    [property: Description("Optimizer steps taken.")] int Step,
    [property: Description("Optimizer steps in all; null until the data is read.")] int? TotalSteps,
    [property: Description("Passes over the training rows.")] double? Epoch,
    [property: Description("Share of the steps that is done, 0 to 100.")] double? Percent,
    [property: Description("Loss of the last step, nats per token.")] double? TrainLoss,
    double? TokensPerSecond,
    long? SecondsRemaining,
    [property: Description("Share of the phase that is done, 0 to 100: known while files are downloaded or tokenized and take some time.")]
    double? PhasePercent)
{
    public static ProgressResponse From(TrainingJob job, StepFigures? last, double? phasePercent)
    {
        int? total = job.TotalSteps > 0 ? job.TotalSteps : null;
        return new ProgressResponse(
            job.Step, total, last?.Epoch, total is { } all ? Math.Round(100.0 * job.Step / all, 2) : null,
            last?.Loss, last?.TokensPerSecond, last?.SecondsRemaining, phasePercent);
    }
}

/// <summary>Why a job failed, and who must act.</summary>
internal sealed record FailureResponse(string Code, string Message, string? Param, Responsibility Responsibility, string? LogTail)
{
    public static FailureResponse From(JobFailure failure) =>
        new(failure.Code, failure.Message, failure.Param, failure.Responsibility, failure.LogTail);
}

internal sealed record TransitionResponse(JobStatus Status, long At, string? Reason)
{
    public static TransitionResponse From(JobTransition transition) =>
        new(transition.Status, Wire.UnixSeconds(transition.At), transition.Reason);
}

/// <summary>A job with all its facts.</summary>
internal sealed record JobResponse(
    string Id,
    JobStatus Status,
    [property: Description("What a running job is busy with.")] string? Phase,
    string Model,
    [property: Description("Name of the result, once the job has succeeded.")] string? FineTunedModel,
    string? Suffix,
    JsonElement? Metadata,
    [property: Description("The whole training spec, defaults written out.")] JsonElement Spec,
    int Priority,
    ProgressResponse Progress,
    [property: Description("Tokens that carried loss.")] long TrainedTokens,
    [property: Description("How often a worker has started the job.")] int Attempt,
    [property: Description("How often its worker was lost.")] int RecoveryCount,
    [property: Description("How often a failure of the platform ended an attempt.")] int FailureCount,
    [property: Description("When its owner asked a running job to pause; null again once it has.")] long? PauseRequestedAt,
    [property: Description("Since when a running job has made no progress, once that is too long.")] long? StalledSince,
    [property: Description("Seconds that all its attempts may run together.")] int? MaxRunSeconds,
    [property: Description("Seconds that its ended attempts ran.")] double RunSeconds,
    [property: Description("What the run should take of its machine, and what it took.")] ResourcesResponse Resources,
    [property: Description("Place in the queue, from 1; null when the job does not wait.")] int? QueuePosition,
    long CreatedAt,
    long? StartedAt,
    long? FinishedAt,
    long? LastProgressAt,
    FailureResponse? Error,
    IReadOnlyList<string> ResultFiles,
    IReadOnlyList<TransitionResponse> History)
{
    public string Object { get; } = "job";

    public static JobResponse From(JobFacts facts)
    {
        var job = facts.Job;
        return new JobResponse(
            PublicId.Of(PublicId.Job, job.Id), job.Status, job.Phase, job.Model, job.FineTunedModel, job.Suffix,
            Wire.Parse(job.MetadataJson), Wire.Parse(job.SpecJson)!.Value, job.Priority,
            ProgressResponse.From(job, facts.LastStep, facts.PhasePercent), job.TrainedTokens, job.Attempt, job.RecoveryCount, job.FailureCount,
            Wire.UnixSeconds(job.PauseRequestedAt), Wire.UnixSeconds(job.StalledSince), job.MaxRunSeconds, Math.Round(job.RunSeconds, 3),
            ResourcesResponse.From(job),
            facts.QueuePosition,
            Wire.UnixSeconds(job.CreatedAt), Wire.UnixSeconds(job.StartedAt), Wire.UnixSeconds(job.FinishedAt),
            Wire.UnixSeconds(job.LastProgressAt), job.Failure is { } failure ? FailureResponse.From(failure) : null,
            facts.ResultFiles, [.. job.History.Select(TransitionResponse.From)]);
    }
}

/// <summary>One line of a job's story.</summary>
internal sealed record EventResponse(
    string Id, long CreatedAt, EventLevel Level, string Message, string Type, JsonElement? Data, long Sequence)
{
    public string Object { get; } = "fine_tuning.job.event";

    public static EventResponse From(JobEvent line) => new(
        PublicId.Of(PublicId.Event, line.Id), Wire.UnixSeconds(line.CreatedAt), line.Level, line.Message, line.Type,
        Wire.Parse(line.DataJson), line.Sequence);
}

/// <summary>A file that a run produced.</summary>
internal sealed record ArtifactResponse(string Path, long Bytes, string Sha256, string ContentType, string Url)
{
    public string Object { get; } = "job.artifact";
}
