using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using TrainingService.Domain;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Models;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Training;
using TrainingService.Training.Scoring;
using TrainingService.Training.Throughput;
using TrainingService.Worker.Scoring;

namespace TrainingService.Worker.Supervision;

/// <summary>What an attempt runs on.</summary>
/// <param name="Spec">As submitted, ids and all.</param>
/// <param name="Local">The same with local paths.</param>
/// <param name="ModelName">The base model as people call it.</param>
/// <param name="ResumedFrom">Steps of the checkpoint that was restored; zero: none was.</param>
/// <param name="Pace">How fast earlier runs went.</param>
internal sealed record PreparedJob(
    TrainingSpec Spec, TrainingSpec Local, string ModelName, string? Suffix, string ProjectName, int ResumedFrom, Pace Pace);

/// <summary>Turns the ids of a spec into local paths, and fetches what they stand for.</summary>
internal sealed class JobInputs(IDbContextFactory<AppDbContext> contexts, ArtifactCache cache, HubFolders hub, CheckpointRestore restore)
{
    private static readonly JsonSerializerOptions FilesJson = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    /// <exception cref="TrainingException">Something that the spec names is gone.</exception>
    public async Task<PreparedJob> PrepareAsync(
        JobLease lease, string work, ReportBuffer reports, CacheUse use, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var job = await db.Jobs.AsNoTracking().SingleAsync(j => j.Id == lease.JobId, cancellationToken);
        var project = await db.Projects.AsNoTracking().SingleAsync(p => p.Id == lease.ProjectId, cancellationToken);
        var parsed = SpecJson.Parse(job.SpecJson);
        if (parsed.Spec is not { } spec)
        {
            throw TrainingException.InvalidSpec(string.Join(" ", parsed.Errors.Select(e => e.Message)), parsed.Errors[0].Path);
        }

        var model = await FindModelAsync(db, lease.ProjectId, spec.Model, cancellationToken);
        var sources = new Dictionary<string, string>();
        foreach (var name in spec.Adapter.Sources().Distinct())
        {
            sources.Add(name, await ResultFolderAsync(db, lease.ProjectId, name, reports, use, cancellationToken));
        }

        var local = spec with
        {
            Model = await ModelFolderAsync(model, reports, use, cancellationToken),
            Data = spec.Data with
            {
                Train = await FileAsync(db, lease.ProjectId, spec.Data.Train, "data.train", reports, use, cancellationToken),
                Validation = spec.Data.Validation is { } validation
                    ? await FileAsync(db, lease.ProjectId, validation, "data.validation", reports, use, cancellationToken)
                    : null,
                Calibration = spec.Data.Calibration is { } calibration
                    ? await FileAsync(db, lease.ProjectId, calibration, "data.calibration", reports, use, cancellationToken)
                    : null,
            },
            Adapter = spec.Adapter.WithSources(name => sources[name]),
        };
        var resumedFrom = await restore.RunAsync(db, lease.JobId, work, reports, cancellationToken);
        var pace = Pace.Read(await PastRuns.ReadAsync(db, cancellationToken));
        return new PreparedJob(spec, local, model.Name, job.Suffix, project.Name, resumedFrom, pace);
    }

    /// <summary>Fetches a model that scores.</summary>
    /// <exception cref="TrainingException">Something of it is gone.</exception>
    public async Task<ScorerSource> ScorerAsync(ScoredModel model, ReportBuffer reports, CacheUse use, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        if (model.Job is not { } id)
        {
            var own = await FindModelAsync(db, model.ProjectId, PublicId.Of(PublicId.Model, model.BaseModel ?? Guid.Empty), cancellationToken);
            return new(await ModelFolderAsync(own, reports, use, cancellationToken), null);
        }

        var result = await ResultFolderAsync(db, model.ProjectId, PublicId.Of(PublicId.Job, id), reports, use, cancellationToken);
        if (File.Exists(Path.Combine(result, "config.json")))
        {
            return new(result, null);   // every weight was trained: a model of its own
        }

        var job = await db.Jobs.AsNoTracking().SingleAsync(j => j.Id == id, cancellationToken);
        using var spec = JsonDocument.Parse(job.SpecJson);
        var name = spec.RootElement.GetProperty("model").GetString()!;
        return new(await ModelFolderAsync(await FindModelAsync(db, model.ProjectId, name, cancellationToken), reports, use, cancellationToken), result);
    }

    private static async Task<BaseModel> FindModelAsync(AppDbContext db, Guid project, string name, CancellationToken cancellationToken)
    {
        var isId = PublicId.TryParse(PublicId.Model, name, out var id);
        return await db.Models.AsNoTracking()
            .SingleOrDefaultAsync(m => m.ProjectId == project && (isId ? m.Id == id : m.Name == name), cancellationToken)
            ?? throw TrainingException.InvalidSpec($"There is no base model '{name}' any more; register it again.", "model");
    }

    /// <summary>A registered folder is used where it lies; stored files come through the cache, and weights on the hub from there.</summary>
    private Task<string> ModelFolderAsync(BaseModel model, ReportBuffer reports, CacheUse use, CancellationToken cancellationToken) =>
        model.Source switch
        {
            ModelSource.LocalPath when Directory.Exists(model.Location) => Task.FromResult(model.Location),
            ModelSource.LocalPath => throw TrainingException.InvalidData(
                $"The folder of base model '{model.Name}' is not on this worker; register the model where all workers reach it, or upload it.", "model"),
            ModelSource.Stored => use.OfAsync(
                () => cache.FolderAsync(
                    model.Name,
                    [.. FilesOf(model).Select(file => new CachedFile(file.Path, $"{model.Location.TrimEnd('/')}/{file.Path}", file.Sha256, file.Bytes))],
                    reports, cancellationToken),
                cancellationToken),
            ModelSource.Hub => use.OfAsync(
                () => hub.FolderAsync(model, FilesOf(model), reports, cancellationToken), cancellationToken),
        };

    private static List<ModelFileEntry> FilesOf(BaseModel model) => JsonSerializer.Deserialize<List<ModelFileEntry>>(model.FilesJson, FilesJson)!;

    private async Task<string> FileAsync(
        AppDbContext db, Guid project, string name, string param, ReportBuffer reports, CacheUse use, CancellationToken cancellationToken)
    {
        var file = PublicId.TryParse(PublicId.File, name, out var id)
            ? await db.Files.AsNoTracking().SingleOrDefaultAsync(f => f.Id == id && f.ProjectId == project, cancellationToken)
            : null;
        if (file is null)
        {
            throw TrainingException.InvalidSpec($"There is no file '{name}' any more; upload it again.", param);
        }

        var local = LocalName(file);
        var folder = await use.OfAsync(
            () => cache.FolderAsync(
                file.FileName, [new CachedFile(local, file.StorageKey, file.Sha256, file.Bytes)], reports, cancellationToken),
            cancellationToken);
        return Path.Combine(folder, local);
    }

    /// <summary>The file's own name, since its ending tells the container; without anything that a file system could misread.</summary>
    private static string LocalName(DataFile file)
    {
        var name = string.Concat(file.FileName.Select(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-' or '_' ? c : '_')).TrimStart('.');
        return name.Length switch { 0 => "data", > 100 => name[^100..].TrimStart('.'), _ => name };
    }

    /// <summary>The saved weights of an earlier job, by the name of its model or by its id.</summary>
    private async Task<string> ResultFolderAsync(
        AppDbContext db, Guid project, string name, ReportBuffer reports, CacheUse use, CancellationToken cancellationToken)
    {
        var isId = PublicId.TryParse(PublicId.Job, name, out var id);
        var job = await db.Jobs.AsNoTracking().SingleOrDefaultAsync(
            j => j.ProjectId == project && j.Status == JobStatus.Succeeded && (isId ? j.Id == id : j.FineTunedModel == name), cancellationToken);
        var files = job is null
            ? []
            : await db.Artifacts.AsNoTracking()
                .Where(a => a.JobId == job.Id && a.Attempt == job.Attempt && (a.Path.StartsWith("adapter/") || a.Path.StartsWith("model/")))
                .ToListAsync(cancellationToken);
        if (files.Count == 0)
        {
            throw TrainingException.InvalidSpec($"There is no fine-tuned model '{name}' any more.", "adapter.from");
        }

        return await use.OfAsync(
            () => cache.FolderAsync(
                name, [.. files.Select(a => new CachedFile(a.Path[(a.Path.IndexOf('/') + 1)..], a.StorageKey, a.Sha256, a.Bytes))],
                reports, cancellationToken),
            cancellationToken);
    }
}
