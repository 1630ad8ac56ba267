using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Api.Http;
using TrainingService.Api.Jobs;
using TrainingService.Domain;
using TrainingService.Domain.Jobs;

namespace TrainingService.Api.FineTuning;

/// <summary>How far a run is, in the words of this dialect.</summary>
internal sealed record FineTuningProgress(
    int Step, int? MaxSteps, double? Epoch, double? Percent, double? TokensPerSecond, long? SecondsRemaining);

/// <summary>Why a job failed; <c>responsibility</c> and <c>log_tail</c> are ours.</summary>
internal sealed record FineTuningError(string Code, string Message, string? Param, Responsibility Responsibility, string? LogTail);

/// <summary>
/// A job as OpenAI's clients read it. All that they do not know of stands behind: they pass over it. <c>n_epochs</c> is a whole number
/// because they read one; the exact one is in <c>schedule</c>.
/// </summary>
internal sealed record FineTuningJobResponse(
    string Id, long CreatedAt, long? FinishedAt, string Model, string? FineTunedModel, string OrganizationId,
    IReadOnlyList<string> ResultFiles, string Status, string TrainingFile, string? ValidationFile,
    JsonObject Hyperparameters, JsonObject Method, int? TrainedTokens, FineTuningError? Error, int Seed, long? EstimatedFinish,
    IReadOnlyList<string> Integrations, JsonElement? Metadata, string? UserProvidedSuffix)
{
    public string Object { get; } = "fine_tuning.job";

    public required string? Phase { get; init; }

    public required FineTuningProgress Progress { get; init; }

    public required int Attempt { get; init; }

    public required int RecoveryCount { get; init; }

    public required long? PauseRequestedAt { get; init; }

    public required long? StalledSince { get; init; }

    public required int? MaxRunSeconds { get; init; }

    public required ResourcesResponse Resources { get; init; }

    public required int? QueuePosition { get; init; }

    public required long? StartedAt { get; init; }

    public required long? LastProgressAt { get; init; }

    public required JsonElement Data { get; init; }

    public required JsonElement Objective { get; init; }

    public required JsonElement Adapter { get; init; }

    public required JsonElement Optimizer { get; init; }

    public required JsonElement Schedule { get; init; }

    public required JsonElement Precision { get; init; }

    public JsonElement? Quantization { get; init; }

    public required JsonElement Evaluation { get; init; }

    public required JsonElement Checkpoints { get; init; }

    public required JsonElement Spectra { get; init; }

    public static FineTuningJobResponse From(JobFacts facts, Caller caller)
    {
        var job = facts.Job;
        var spec = Wire.Parse(job.SpecJson)!.Value;
        var data = spec.GetProperty("data");
        var hyperparameters = HyperparametersOf(spec);
        var method = FineTuningMethods.MethodOf(spec.GetProperty("objective").GetProperty("type").GetString()!);
        var progress = ProgressResponse.From(job, facts.LastStep, facts.PhasePercent);
        return new FineTuningJobResponse(
            PublicId.Of(PublicId.Job, job.Id), Wire.UnixSeconds(job.CreatedAt), Wire.UnixSeconds(job.FinishedAt), job.Model, job.FineTunedModel,
            caller.ProjectName, facts.ResultFiles, StatusOf(job.Status), data.GetProperty("train").GetString()!,
            data.GetProperty("validation").GetString(), hyperparameters,
            new JsonObject { ["type"] = method, [method] = new JsonObject { ["hyperparameters"] = OfMethod(hyperparameters, spec.GetProperty("objective")) } },
            job.Status == JobStatus.Succeeded ? Wire.Int32(job.TrainedTokens) : null,
            job.Failure is { } failure
                ? new FineTuningError(failure.Code, failure.Message, failure.Param, failure.Responsibility, failure.LogTail)
                : null,
            spec.GetProperty("seed").GetInt32(),
            // The .NET client sleeps until this time before it asks again, and throws once it has passed; progress says how long it takes.
            EstimatedFinish: null,
            Integrations: [], Metadata: Wire.Parse(job.MetadataJson), UserProvidedSuffix: job.Suffix)
        {
            Phase = job.Phase,
            Progress = new FineTuningProgress(
                progress.Step, progress.TotalSteps, progress.Epoch, progress.Percent, progress.TokensPerSecond, progress.SecondsRemaining),
            Attempt = job.Attempt,
            RecoveryCount = job.RecoveryCount,
            PauseRequestedAt = Wire.UnixSeconds(job.PauseRequestedAt),
            StalledSince = Wire.UnixSeconds(job.StalledSince),
            MaxRunSeconds = job.MaxRunSeconds,
            Resources = ResourcesResponse.From(job),
            QueuePosition = facts.QueuePosition,
            StartedAt = Wire.UnixSeconds(job.StartedAt),
            LastProgressAt = Wire.UnixSeconds(job.LastProgressAt),
            Data = data,
            Objective = spec.GetProperty("objective"),
            Adapter = spec.GetProperty("adapter"),
            Optimizer = spec.GetProperty("optimizer"),
            Schedule = spec.GetProperty("schedule"),
            Precision = spec.GetProperty("precision"),
            Quantization = spec.TryGetProperty("quantization", out var quantization) ? quantization : null,   // specs of earlier releases lack it
            Evaluation = spec.GetProperty("evaluation"),
            Checkpoints = spec.GetProperty("checkpoints"),
            Spectra = spec.GetProperty("spectra"),
        };
    }

    /// <summary>The clients know no status between running and cancelled, and such a job still runs.</summary>
    private static string StatusOf(JobStatus status) => status == JobStatus.Cancelling ? "running" : Wire.Name(status);

    /// <summary>Those of the job, and what the method has besides.</summary>
    private static JsonNode OfMethod(JsonObject hyperparameters, JsonElement objective)
    {
        var all = hyperparameters.DeepClone();
        if (objective.TryGetProperty(FineTuningMethods.Beta, out var beta))
        {
            all[FineTuningMethods.Beta] = beta.GetDouble();
        }

        return all;
    }

    private static JsonObject HyperparametersOf(JsonElement spec)
    {
        var schedule = spec.GetProperty("schedule");
        var rate = spec.GetProperty("optimizer").GetProperty("learning_rate").GetDouble();
        return new JsonObject
        {
            ["n_epochs"] = schedule.GetProperty("max_steps").ValueKind == JsonValueKind.Null
                ? Math.Max(1, (int)Math.Ceiling(schedule.GetProperty("epochs").GetDouble()))
                : "auto",
            ["batch_size"] = schedule.GetProperty("batch_size").GetInt32() * schedule.GetProperty("gradient_accumulation_steps").GetInt32(),

            // Without the dust of a division: 0.0002/0.0002 and its like are to read as they were written.
            ["learning_rate_multiplier"] = Math.Round(rate / FineTuningRequest.BaseLearningRate, 9),
        };
    }
}
