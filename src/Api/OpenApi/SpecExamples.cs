using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Files;
using TrainingService.Api.Models;
using TrainingService.Domain;
using TrainingService.Infrastructure;

namespace TrainingService.Api.OpenApi;

/// <summary>Bodies that work as they stand: they name the newest base model and the newest data file that there are.</summary>
internal sealed class SpecExamples(AppDbContext db, IHttpContextAccessor accessor)
{
    public async Task<JsonObject> ForAsync(SpecBody body, CancellationToken cancellationToken)
    {
        var (model, file) = await NewestAsync(cancellationToken);
        var schedule = new JsonObject { ["epochs"] = 1, ["max_steps"] = 20, ["batch_size"] = 8 };
        var adapter = new JsonObject { ["type"] = "lora", ["rank"] = 16, ["alpha"] = 32, ["target_modules"] = "all-linear" };
        if (body == SpecBody.FineTuningJob)
        {
            return new JsonObject
            {
                ["model"] = model,
                ["training_file"] = file,
                ["suffix"] = "example",
                ["method"] = new JsonObject
                {
                    ["type"] = "supervised",
                    ["supervised"] = new JsonObject
                    {
                        ["hyperparameters"] = new JsonObject { ["n_epochs"] = 1, ["batch_size"] = 8, ["learning_rate_multiplier"] = "auto" },
                    },
                },
                ["adapter"] = adapter,
            };
        }

        return new JsonObject
        {
            ["model"] = model,
            ["data"] = new JsonObject { ["train"] = file, ["max_length"] = 256 },
            ["objective"] = new JsonObject { ["type"] = "sft" },
            ["adapter"] = adapter,
            ["optimizer"] = new JsonObject { ["type"] = "adamw", ["learning_rate"] = 2e-3 },
            ["schedule"] = schedule,
        };
    }

    private async Task<(string Model, string File)> NewestAsync(CancellationToken cancellationToken)
    {
        // The document is open to everybody; ids are not.
        if (accessor.HttpContext is not { User.Identity.IsAuthenticated: true } context)
        {
            return ("mdl_…", "file-…");
        }

        var caller = await Caller.BindAsync(context);
        var model = await db.Models.AsNoTracking().OwnedBy(caller)
            .OrderByDescending(row => row.CreatedAt).Select(row => (Guid?)row.Id).FirstOrDefaultAsync(cancellationToken);
        var file = await db.Files.AsNoTracking().OwnedBy(caller).Where(row => row.Purpose == "fine-tune")
            .OrderByDescending(row => row.CreatedAt).Select(row => (Guid?)row.Id).FirstOrDefaultAsync(cancellationToken);
        return (
            model is { } modelId ? PublicId.Of(PublicId.Model, modelId) : "mdl_…",
            file is { } fileId ? PublicId.Of(PublicId.File, fileId) : "file-…");
    }
}
