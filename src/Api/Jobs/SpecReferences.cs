using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Files;
using TrainingService.Api.Http;
using TrainingService.Api.Models;
using TrainingService.Domain;
using TrainingService.Domain.Files;
using TrainingService.Domain.Models;
using TrainingService.Infrastructure;
using TrainingService.Training;
using TrainingService.Training.Models;

namespace TrainingService.Api.Jobs;

/// <summary>A spec whose ids were found, or everything that is wrong with it.</summary>
internal sealed record ResolvedSpec(
    TrainingSpec? Spec, BaseModel? Model, ModelConfig? Config, DataFile? Train, IReadOnlyList<SpecError> Errors);

/// <summary>Reads a spec and looks its ids up, so that a job that cannot run is refused rather than queued.</summary>
internal static class SpecReferences
{
    private const string TrainingPurpose = "fine-tune";

    public static async Task<ResolvedSpec> ResolveAsync(
        AppDbContext db, ModelRegistration registration, JobOptions options, Caller caller, JsonElement json, CancellationToken cancellationToken)
    {
        var read = SpecJson.Parse(json);
        var errors = read.Errors.ToList();
        var lookup = new Lookup(db, registration, caller, json, errors);
        var model = await lookup.ModelAsync(cancellationToken);
        var train = await lookup.FileAsync("train", cancellationToken);
        await lookup.FileAsync("validation", cancellationToken);
        await lookup.FileAsync("calibration", cancellationToken);
        await lookup.AdaptersAsync(model, cancellationToken);
        var config = model is null ? null : ModelConfig.Parse(model.ConfigJson);
        if (read.Spec is null || errors.Count > 0)
        {
            return new ResolvedSpec(null, model, config, train, errors);
        }

        // Names are resolved now, so that the job keeps its model when another one takes the name.
        var spec = read.Spec with { Model = PublicId.Of(PublicId.Model, model!.Id) };
        var misfits = SpecChecks.AgainstModel(spec, config!);
        if (misfits.Count == 0 && TooLarge(spec, config!, options) is { } error)
        {
            misfits = [error];
        }

        return new ResolvedSpec(misfits.Count == 0 ? spec : null, model, config, train, misfits);
    }

    /// <summary>What no machine here has. Rows, which may be shorter than the spec allows, are left out of it.</summary>
    private static SpecError? TooLarge(TrainingSpec spec, ModelConfig config, JobOptions options)
    {
        var needed = Estimate.For(spec, config).Memory.BytesWithoutRows();
        return needed <= options.LargestEstimateBytes ? null : new SpecError(
            "model",
            $"The job needs about {needed} bytes of memory for weights, gradients and optimizer (estimated), and at most {options.LargestEstimateBytes} "
            + "are allowed (setting Jobs:LargestEstimateBytes); take a smaller model, or adapter lora with a lower rank.",
            "too_large");
    }

    private sealed class Lookup(AppDbContext db, ModelRegistration registration, Caller caller, JsonElement spec, List<SpecError> errors)
    {
        public async Task<BaseModel?> ModelAsync(CancellationToken cancellationToken)
        {
            if (Text(spec, "model") is not { } name)
            {
                return null;
            }

            try
            {
                var model = await db.Models.AsNoTracking().FindOwnedAsync(caller, name, cancellationToken)
                    ?? await registration.FromSpecAsync(caller, name, cancellationToken);
                if (model is not null)
                {
                    return model;
                }

                errors.Add(new SpecError("model", $"There is no base model '{name}'; register it with POST /v1/models, or see GET /v1/models.", "model_not_available"));
            }
            catch (RequestException refused) when (refused.Status == StatusCodes.Status400BadRequest)
            {
                errors.Add(new SpecError("model", refused.Message, refused.Error.Code!));
            }
            catch (TrainingException unusable) when (unusable.Code is FailureCode.InvalidData or FailureCode.InvalidSpec)
            {
                errors.Add(new SpecError("model", unusable.Message, Wire.Name(unusable.Code)));
            }

            return null;
        }

        public async Task<DataFile?> FileAsync(string member, CancellationToken cancellationToken)
        {
            if (Text(Member(spec, "data"), member) is not { } id)
            {
                return null;
            }

            var file = await db.Files.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken);
            if (file is null)
            {
                errors.Add(new SpecError($"data.{member}", $"There is no file '{id}'; upload it with POST /v1/files and give its id.", "file_not_found"));
            }
            else if (file.Purpose != TrainingPurpose)
            {
                errors.Add(new SpecError(
                    $"data.{member}", $"File '{id}' has purpose {file.Purpose}; upload it with purpose {TrainingPurpose}.", "invalid_purpose"));
            }

            return file;
        }

        public async Task AdaptersAsync(BaseModel? model, CancellationToken cancellationToken)
        {
            var adapter = Member(spec, "adapter");
            if (Text(adapter, "from") is { } from)
            {
                await AdapterAsync("adapter.from", from, model, cancellationToken);
            }

            if (Member(adapter, "task_vectors") is { ValueKind: JsonValueKind.Array } vectors)
            {
                foreach (var (index, vector) in vectors.EnumerateArray().Take(SpecJson.MaxErrors).Index())
                {
                    if (vector.ValueKind == JsonValueKind.String)
                    {
                        await AdapterAsync($"adapter.task_vectors[{index}]", vector.GetString()!, model, cancellationToken);
                    }
                }
            }
        }

        /// <summary>An adapter fits the base model that it was trained on and no other.</summary>
        private async Task AdapterAsync(string path, string name, BaseModel? model, CancellationToken cancellationToken)
        {
            var job = await db.FindFineTunedAsync(caller, name, cancellationToken);
            if (job is null)
            {
                errors.Add(new SpecError(path, $"There is no fine-tuned model '{name}'; see GET /v1/models.", "model_not_available"));
                return;
            }

            var itsBase = Wire.Parse(job.SpecJson)!.Value.GetProperty("model").GetString();
            if (model is not null && itsBase != PublicId.Of(PublicId.Model, model.Id))
            {
                errors.Add(new SpecError(
                    path, $"'{name}' was trained on base model {job.Model} ({itsBase}), not on {model.Name}; set model to {itsBase}.", "wrong_base_model"));
            }
        }

        private static JsonElement Member(JsonElement json, string name) =>
            json.ValueKind == JsonValueKind.Object && json.TryGetProperty(name, out var value) ? value : default;

        private static string? Text(JsonElement json, string name) =>
            Member(json, name) is { ValueKind: JsonValueKind.String } value && value.GetString() is { Length: > 0 } text ? text : null;
    }
}
