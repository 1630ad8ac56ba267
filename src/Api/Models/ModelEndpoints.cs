using System.Text.Json;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Files;
using TrainingService.Api.Http;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Models;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Models;

internal static class ModelEndpoints
{
    public static void MapModels(this IEndpointRouteBuilder routes)
    {
        var models = routes.MapGroup("/v1/models").WithTags("Models").RequireAuthorization();
        models.MapPost("", Register).WithSummary("Register a base model")
            .WithDescription("A local folder (path) or a model on the hub (hub) by JSON, or an archive (.tar, .tar.gz, .zip) by multipart/form-data with the fields name and file.")
            .Accepts<RegisterModelRequest>("application/json", "multipart/form-data");
        models.MapGet("", List).WithSummary("List base models and fine-tuned models");
        models.MapGet("/{**model}", Get).WithSummary("Read a model");
        models.MapDelete("/{**model}", Delete).WithSummary("Delete a model");
    }

    private static async Task<Results<Ok<ModelResponse>, ErrorResult>> Register(
        HttpContext context, Caller caller, ModelRegistration registration, CancellationToken cancellationToken)
    {
        if (context.Request.HasJsonContentType())
        {
            var request = await JsonBody.ReadAsync<RegisterModelRequest>(context, cancellationToken);
            return TypedResults.Ok(ModelResponse.From(await registration.FromRequestAsync(caller, request, cancellationToken), caller));
        }

        return TypedResults.Ok(ModelResponse.From(await registration.FromArchiveAsync(caller, context, cancellationToken), caller));
    }

    private static async Task<Ok<ListPage<ModelResponse>>> List(Caller caller, AppDbContext db, CancellationToken cancellationToken)
    {
        var bases = await db.Models.AsNoTracking().OwnedBy(caller).ToListAsync(cancellationToken);
        var tuned = await db.FineTuned(caller).ToListAsync(cancellationToken);
        var all = bases.Select(model => ModelResponse.From(model, caller) with { Files = null })
            .Concat(tuned.Select(job => ModelResponse.From(job, caller)))
            .OrderByDescending(model => model.Created).ThenByDescending(model => model.Id, StringComparer.Ordinal).ToList();
        return TypedResults.Ok(ListPage.Of(all, Math.Max(1, all.Count), model => model, model => model.Id));
    }

    private static async Task<Results<Ok<ModelResponse>, ErrorResult>> Get(
        string model, Caller caller, AppDbContext db, CancellationToken cancellationToken)
    {
        var name = NameOf(model);
        if (await db.Models.AsNoTracking().FindOwnedAsync(caller, name, cancellationToken) is { } found)
        {
            return TypedResults.Ok(ModelResponse.From(found, caller));
        }

        return await db.FindFineTunedAsync(caller, name, cancellationToken) is { } job
            ? TypedResults.Ok(ModelResponse.From(job, caller))
            : ErrorResult.NotFound("model", name, "model");
    }

    private static async Task<Results<Ok<DeletedResponse>, ErrorResult>> Delete(
        string model, Caller caller, AppDbContext db, IArtifactStore store, CancellationToken cancellationToken)
    {
        var name = NameOf(model);
        if (await db.Models.FindOwnedAsync(caller, name, cancellationToken) is { } found)
        {
            var id = Domain.PublicId.Of(Domain.PublicId.Model, found.Id);
            var waiting = await db.Jobs.AnyAsync(
                job => job.ProjectId == caller.ProjectId && (job.Model == found.Name || job.Model == id)
                    && job.Status != JobStatus.Succeeded && job.Status != JobStatus.Failed && job.Status != JobStatus.Cancelled,
                cancellationToken);
            if (waiting)
            {
                return ErrorResult.Conflict("model_in_use", $"Jobs that have not ended use model '{name}'; cancel them first, or wait.", "model");
            }

            db.Models.Remove(found);
            await db.SaveChangesAsync(cancellationToken);
            if (found.Source is ModelSource.Stored or ModelSource.Hub)
            {
                foreach (var file in JsonSerializer.Deserialize<List<ModelFile>>(found.FilesJson, ModelFiles.Json)!.Where(file => !file.Remote))
                {
                    await store.DeleteAsync($"{found.Location}/{file.Path}", CancellationToken.None);
                }
            }

            return TypedResults.Ok(new DeletedResponse(name, "model"));
        }

        if (await db.FindFineTunedAsync(caller, name, cancellationToken) is not { } job)
        {
            return ErrorResult.NotFound("model", name, "model");
        }

        // The job and its figures stay; the weights go.
        var weights = await db.Artifacts.Where(artifact => artifact.JobId == job.Id
            && (artifact.Path.StartsWith("adapter/") || artifact.Path.StartsWith("model/"))).ToListAsync(cancellationToken);
        db.Artifacts.RemoveRange(weights);
        await db.SaveChangesAsync(cancellationToken);
        foreach (var file in weights)
        {
            await store.DeleteAsync(file.StorageKey, CancellationToken.None);
        }

        return TypedResults.Ok(new DeletedResponse(name, "model"));
    }

    /// <summary>Clients escape the slashes in a name, and the router leaves them escaped.</summary>
    private static string NameOf(string route) => Uri.UnescapeDataString(route);
}
