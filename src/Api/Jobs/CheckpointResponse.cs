using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Api.Http;
using TrainingService.Domain;
using TrainingService.Domain.Jobs;

namespace TrainingService.Api.Jobs;

/// <summary>A saved state of a job, as OpenAI's clients read it; <c>attempt</c> and <c>best</c> are ours.</summary>
internal sealed record CheckpointResponse(
    string Id, long CreatedAt, string FineTunedModelCheckpoint, string FineTuningJobId, int StepNumber, JsonObject Metrics, int Attempt, bool Best)
{
    public string Object { get; } = "fine_tuning.job.checkpoint";

    public static CheckpointResponse From(JobCheckpoint checkpoint, TrainingJob job)
    {
        var name = job.FineTunedModel ?? PublicId.Of(PublicId.Job, job.Id);
        return new CheckpointResponse(
            PublicId.Of(PublicId.Checkpoint, checkpoint.Id), Wire.UnixSeconds(checkpoint.CreatedAt), $"{name}:ckpt-step-{checkpoint.Step}",
            PublicId.Of(PublicId.Job, job.Id), checkpoint.Step, MetricsOf(checkpoint), checkpoint.Attempt, checkpoint.Best);
    }

    /// <summary>The names that the clients know, then ours.</summary>
    private static JsonObject MetricsOf(JobCheckpoint checkpoint)
    {
        var values = JsonSerializer.Deserialize<JsonObject>(checkpoint.MetricsJson) ?? [];
        var shown = new JsonObject
        {
            ["step"] = checkpoint.Step,
            ["train_loss"] = values["train/loss"]?.DeepClone(),
            ["valid_loss"] = values["eval/loss"]?.DeepClone(),
            ["valid_mean_token_accuracy"] = values["eval/token_accuracy"]?.DeepClone(),
            ["full_valid_loss"] = values["eval/loss"]?.DeepClone(),
            ["full_valid_mean_token_accuracy"] = values["eval/token_accuracy"]?.DeepClone(),
        };
        foreach (var (name, value) in values)
        {
            shown.TryAdd(name, value?.DeepClone());
        }

        return shown;
    }
}
