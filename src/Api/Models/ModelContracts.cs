using System.ComponentModel;
using System.Text.Json;
using System.Text.Json.Serialization;
using TrainingService.Api.Http;
using TrainingService.Domain;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Models;
using TrainingService.Training.Models;

namespace TrainingService.Api.Models;

/// <summary>A local folder, or a model on the hub, to register as base model.</summary>
internal sealed record RegisterModelRequest(
    [property: Description("Name that jobs may use instead of the id; unique. Left out, a model from the hub is called by its hub id.")] string? Name = null,
    [property: Description("A Hugging Face folder on the service's machine: config.json, *.safetensors, tokenizer files.")] string? Path = null,
    [property: Description("Id of a model on the hub, such as org/name; instead of path.")] string? Hub = null,
    [property: Description("Branch, tag or commit on the hub; main when left out. The commit that it stands for now is kept.")] string? Revision = null);

/// <summary>One file of a base model.</summary>
internal sealed record ModelFile(string Path, long Bytes, string Sha256)
{
    [Description("Whether the worker fetches it from the hub; left out where it is stored here.")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool Remote { get; init; }
}

/// <summary>Where a base model comes from.</summary>
internal sealed record ModelOnHub(
    [property: Description("Id on the hub.")] string Id,
    [property: Description("Branch, tag or commit that was asked for.")] string Revision,
    [property: Description("The commit that it stood for; its files are used and no others.")] string Commit);

/// <summary>A model, as OpenAI's clients read it, and what else is known of it.</summary>
internal sealed record ModelResponse(string Id, long Created, string OwnedBy)
{
    public string Object { get; } = "model";

    [Description("Name that jobs may use instead of the id; null for a fine-tuned model.")]
    public string? Name { get; init; }

    [Description("base, or fine_tuned.")]
    public required string Kind { get; init; }

    public string? Architecture { get; init; }

    public long? Parameters { get; init; }

    public long? Bytes { get; init; }

    [Description("For a base model from the hub.")]
    public ModelOnHub? Hub { get; init; }

    [Description("Base model of a fine-tuned model.")]
    public string? Parent { get; init; }

    [Description("Job that made a fine-tuned model.")]
    public string? JobId { get; init; }

    public IReadOnlyList<ModelFile>? Files { get; init; }

    public static ModelResponse From(BaseModel model, Caller caller)
    {
        var config = ModelConfig.Parse(model.ConfigJson);
        return new ModelResponse(PublicId.Of(PublicId.Model, model.Id), Wire.UnixSeconds(model.CreatedAt), caller.ProjectName)
        {
            Name = model.Name,
            Kind = "base",
            Architecture = config.Architecture,
            Parameters = config.ParameterCount,
            Bytes = model.Bytes,
            Hub = model is { HubId: { } hub, HubRevision: { } revision, HubCommit: { } commit } ? new ModelOnHub(hub, revision, commit) : null,
            Files = JsonSerializer.Deserialize<IReadOnlyList<ModelFile>>(model.FilesJson, ModelFiles.Json),
        };
    }

    public static ModelResponse From(TrainingJob job, Caller caller) =>
        new(job.FineTunedModel!, Wire.UnixSeconds(job.FinishedAt ?? job.CreatedAt), caller.ProjectName)
        {
            Kind = "fine_tuned",
            Parent = job.Model,
            JobId = PublicId.Of(PublicId.Job, job.Id),
        };
}
