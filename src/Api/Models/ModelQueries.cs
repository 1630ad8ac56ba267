using Microsoft.EntityFrameworkCore;
using TrainingService.Domain;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Models;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Models;

internal static class ModelQueries
{
    /// <summary>How names of fine-tuned models begin.</summary>
    public const string FineTunedPrefix = "ft:";

    public static IQueryable<BaseModel> OwnedBy(this IQueryable<BaseModel> models, Caller caller) =>
        models.Where(model => model.ProjectId == caller.ProjectId);

    /// <summary>A base model by id or by name.</summary>
    public static Task<BaseModel?> FindOwnedAsync(
        this IQueryable<BaseModel> models, Caller caller, string idOrName, CancellationToken cancellationToken) =>
        PublicId.TryParse(PublicId.Model, idOrName, out var key)
            ? models.OwnedBy(caller).SingleOrDefaultAsync(model => model.Id == key, cancellationToken)
            : models.OwnedBy(caller).SingleOrDefaultAsync(model => model.Name == idOrName, cancellationToken);

    /// <summary>Succeeded jobs whose result has not been deleted.</summary>
    public static IQueryable<TrainingJob> FineTuned(this AppDbContext db, Caller caller) =>
        db.Jobs.AsNoTracking().Where(job => job.ProjectId == caller.ProjectId && job.FineTunedModel != null
            && db.Artifacts.Any(artifact => artifact.JobId == job.Id && artifact.Attempt == job.Attempt
                && (artifact.Path.StartsWith("adapter/") || artifact.Path.StartsWith("model/"))));

    /// <summary>The job that made a fine-tuned model, by the model's name or the job's id.</summary>
    public static Task<TrainingJob?> FindFineTunedAsync(
        this AppDbContext db, Caller caller, string name, CancellationToken cancellationToken) =>
        PublicId.TryParse(PublicId.Job, name, out var id)
            ? db.FineTuned(caller).SingleOrDefaultAsync(job => job.Id == id, cancellationToken)
            : db.FineTuned(caller).SingleOrDefaultAsync(job => job.FineTunedModel == name, cancellationToken);
}
