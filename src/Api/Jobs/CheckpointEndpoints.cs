using System.Text.Json;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Http;
using TrainingService.Domain;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;
using TrainingService.Training;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Api.Jobs;

/// <summary>The files of a job's checkpoints: the adapter at a step, and what is needed to go on from there.</summary>
internal static class CheckpointEndpoints
{
    public static void MapCheckpointFiles(this IEndpointRouteBuilder jobs)
    {
        jobs.MapGet("/{id}/checkpoints/{checkpoint}/files", Files).WithSummary("List the files of a checkpoint")
            .WithDescription("Those below adapter/ or model/ are the result as it was at that step. Older checkpoints are removed as checkpoints.keep says.");
        jobs.MapDownload("/{id}/checkpoints/{checkpoint}/files/{**path}", Download).WithSummary("Download one of them");
    }

    private static async Task<Results<Ok<ListPage<ArtifactResponse>>, ErrorResult>> Files(
        string id, string checkpoint, Caller caller, AppDbContext db, IArtifactStore store, CancellationToken cancellationToken)
    {
        var found = await FindAsync(db, caller, id, checkpoint, cancellationToken);
        var files = found is null ? null : await ReadManifestAsync(store, found, cancellationToken);
        if (files is null)
        {
            return ErrorResult.NotFound("checkpoint", checkpoint, "checkpoint");
        }

        var shown = files.OrderBy(file => file.Path, StringComparer.Ordinal).Select(file => new ArtifactResponse(
            file.Path, file.Bytes, file.Sha256, file.ContentType,
            $"/v1/jobs/{id}/checkpoints/{checkpoint}/files/{string.Join('/', file.Path.Split('/').Select(Uri.EscapeDataString))}")).ToList();
        return TypedResults.Ok(ListPage.Of(shown, Math.Max(1, shown.Count), file => file, file => file.Path));
    }

    private static async Task<Results<DownloadResult, ErrorResult>> Download(
        string id, string checkpoint, string path, Caller caller, AppDbContext db, IArtifactStore store, CancellationToken cancellationToken)
    {
        var found = await FindAsync(db, caller, id, checkpoint, cancellationToken);
        if (found is null || await ReadManifestAsync(store, found, cancellationToken) is not { } files)
        {
            return ErrorResult.NotFound("checkpoint", checkpoint, "checkpoint");
        }

        // Only what the manifest names is there; a path of the request is compared, and never joined to anything.
        var name = Uri.UnescapeDataString(path);
        var file = files.FirstOrDefault(file => file.Path == name);
        return file is null
            ? ErrorResult.NotFound("file", name, "path")
            : new DownloadResult(
                store, found.StoragePrefix + file.Path, file.Path[(file.Path.LastIndexOf('/') + 1)..], file.ContentType, file.Bytes, file.Sha256,
                mayRedirect: true);
    }

    /// <summary>A checkpoint of a job of the caller's; null when there is none.</summary>
    private static async Task<JobCheckpoint?> FindAsync(
        AppDbContext db, Caller caller, string id, string checkpoint, CancellationToken cancellationToken) =>
        PublicId.TryParse(PublicId.Job, id, out var job) && PublicId.TryParse(PublicId.Checkpoint, checkpoint, out var key)
            ? await db.Checkpoints.AsNoTracking().SingleOrDefaultAsync(
                row => row.Id == key && row.JobId == job && db.Jobs.OwnedBy(caller).Any(owned => owned.Id == job), cancellationToken)
            : null;

    /// <summary>The files that the checkpoint's manifest names; null when it was removed meanwhile.</summary>
    private static async Task<IReadOnlyList<ManifestFile>?> ReadManifestAsync(
        IArtifactStore store, JobCheckpoint checkpoint, CancellationToken cancellationToken)
    {
        await using var content = await store.OpenReadAsync(checkpoint.StoragePrefix + Manifest.FileName, null, cancellationToken);
        return content is null ? null : (await JsonSerializer.DeserializeAsync<Manifest>(content, SpecJson.Options, cancellationToken))?.Files;
    }
}
