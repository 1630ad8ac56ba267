using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Http;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Jobs;

/// <summary>What a run leaves behind: figures, files, spectra, evaluation, log.</summary>
internal static class JobResultEndpoints
{
    private const string SpectraPath = "spectra/spectra.json";
    private const string EvaluationPath = "evaluation/reward.json";
    private const string LogPath = "logs/train.log";
    private const int MostMetricRows = 1_000_000;
    private const int LongestLog = 1 << 20;

    public static void MapJobResults(this IEndpointRouteBuilder jobs)
    {
        jobs.MapGet("/{id}/metrics", Metrics).WithSummary("A job's figures as columns")
            .WithDescription("keys: names, separated by commas, such as train/loss,eval/loss; from_step: the first step.")
            .Produces<MetricColumns>();
        jobs.MapGet("/{id}/artifacts", Artifacts).WithSummary("List the files that a run produced");
        jobs.MapDownload("/{id}/artifacts/{**path}", Download).WithSummary("Download one of them");
        jobs.MapGet("/{id}/spectra", Spectra).WithSummary("Singular values of the adapted weights, their updates and their sums");
        jobs.MapGet("/{id}/evaluation", Evaluation).WithSummary("What is right and wrong with a job's reward model, in sentences and figures")
            .WithDescription("Of jobs of objective reward with validation rows. As a page and as drawings it is among the artifacts, in the folder evaluation.");
        jobs.MapGet("/{id}/logs", Logs).WithSummary("A job's story as plain text, then the last megabyte of its training log")
            .WithDescription("While the job runs: the last lines that its training process has written.");
    }

    /// <summary>The same in both dialects.</summary>
    public static async Task<Results<Ok<MetricColumns>, ErrorResult>> Metrics(
        string id, Caller caller, AppDbContext db, CancellationToken cancellationToken, string? keys = null, int? from_step = null)
    {
        if (await db.FindKeyAsync(caller, id, cancellationToken) is not { } jobId)
        {
            return ErrorResult.NotFound("job", id);
        }

        var from = from_step ?? 0;
        var rows = await db.Metrics.AsNoTracking().Where(metric => metric.JobId == jobId && metric.Step >= from)
            .OrderBy(metric => metric.Step).ThenBy(metric => metric.Kind).Take(MostMetricRows)
            .Select(metric => new { metric.Step, metric.ValuesJson }).ToListAsync(cancellationToken);
        var wanted = keys?.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        return TypedResults.Ok(MetricColumns.From(rows.Select(row => (row.Step, row.ValuesJson)), wanted));
    }

    private static async Task<Results<Ok<ListPage<ArtifactResponse>>, ErrorResult>> Artifacts(
        string id, Caller caller, AppDbContext db, CancellationToken cancellationToken)
    {
        var job = await db.Jobs.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken);
        if (job is null)
        {
            return ErrorResult.NotFound("job", id);
        }

        var files = await ArtifactsOf(db, job).OrderBy(artifact => artifact.Path).ToListAsync(cancellationToken);
        var shown = files.Select(file => new ArtifactResponse(
            file.Path, file.Bytes, file.Sha256, file.ContentType,
            $"/v1/jobs/{id}/artifacts/{string.Join('/', file.Path.Split('/').Select(Uri.EscapeDataString))}")).ToList();
        return TypedResults.Ok(ListPage.Of(shown, Math.Max(1, shown.Count), file => file, file => file.Path));
    }

    private static async Task<Results<DownloadResult, ErrorResult>> Download(
        string id, string path, Caller caller, AppDbContext db, IArtifactStore store, CancellationToken cancellationToken)
    {
        var job = await db.Jobs.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken);
        if (job is null)
        {
            return ErrorResult.NotFound("job", id);
        }

        // Only what the manifest listed has a row; the path is never joined to anything.
        var name = Uri.UnescapeDataString(path);
        var file = await ArtifactsOf(db, job).SingleOrDefaultAsync(artifact => artifact.Path == name, cancellationToken);
        return file is null
            ? ErrorResult.NotFound("artifact", name, "path")
            : new DownloadResult(store, file.StorageKey, file.Path[(file.Path.LastIndexOf('/') + 1)..], file.ContentType, file.Bytes, file.Sha256, mayRedirect: true);
    }

    private static Task<Results<Ok<JsonElement>, ErrorResult>> Spectra(
        string id, Caller caller, AppDbContext db, IArtifactStore store, CancellationToken cancellationToken) =>
        JsonArtifactAsync(id, SpectraPath, "spectrum of job", caller, db, store, cancellationToken);

    private static Task<Results<Ok<JsonElement>, ErrorResult>> Evaluation(
        string id, Caller caller, AppDbContext db, IArtifactStore store, CancellationToken cancellationToken) =>
        JsonArtifactAsync(id, EvaluationPath, "reward evaluation of job", caller, db, store, cancellationToken);

    /// <param name="what">What is missing when there is no such file.</param>
    private static async Task<Results<Ok<JsonElement>, ErrorResult>> JsonArtifactAsync(
        string id, string path, string what, Caller caller, AppDbContext db, IArtifactStore store, CancellationToken cancellationToken)
    {
        var job = await db.Jobs.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken);
        if (job is null)
        {
            return ErrorResult.NotFound("job", id);
        }

        var file = await ArtifactsOf(db, job).SingleOrDefaultAsync(artifact => artifact.Path == path, cancellationToken);
        await using var content = file is null ? null : await store.OpenReadAsync(file.StorageKey, null, cancellationToken);
        return content is null
            ? ErrorResult.NotFound(what, id)
            : TypedResults.Ok(await JsonSerializer.DeserializeAsync<JsonElement>(content, cancellationToken: cancellationToken));
    }

    private static async Task<Results<ContentHttpResult, ErrorResult>> Logs(
        string id, Caller caller, AppDbContext db, IArtifactStore store, CancellationToken cancellationToken)
    {
        var job = await db.Jobs.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken);
        if (job is null)
        {
            return ErrorResult.NotFound("job", id);
        }

        var lines = await db.Events.AsNoTracking().Where(line => line.JobId == job.Id && line.Type == JobEvent.MessageType)
            .OrderBy(line => line.Sequence).ToListAsync(cancellationToken);
        var story = lines.Select(line => $"{line.CreatedAt.UtcDateTime:yyyy-MM-ddTHH:mm:ss.fffZ} {Wire.Name(line.Level),-5} {line.Message}");
        var log = await ReadLogAsync(db, store, job, cancellationToken) ?? job.Failure?.LogTail
            ?? await db.Logs.AsNoTracking().Where(last => last.JobId == job.Id).Select(last => last.Text).SingleOrDefaultAsync(cancellationToken);
        string[] tail = string.IsNullOrEmpty(log) ? [] : ["", "The training process:", log];
        return TypedResults.Text(string.Join('\n', [.. story, .. tail, ""]), "text/plain; charset=utf-8");
    }

    private static async Task<string?> ReadLogAsync(
        AppDbContext db, IArtifactStore store, TrainingJob job, CancellationToken cancellationToken)
    {
        var file = await ArtifactsOf(db, job).SingleOrDefaultAsync(artifact => artifact.Path == LogPath, cancellationToken);
        if (file is null || file.Bytes == 0)
        {
            return null;
        }

        await using var content = await store.OpenReadAsync(
            file.StorageKey, (Math.Max(0, file.Bytes - LongestLog), file.Bytes - 1), cancellationToken);
        if (content is null)
        {
            return null;
        }

        using var reader = new StreamReader(content);
        return await reader.ReadToEndAsync(cancellationToken);
    }

    /// <summary>The files of the attempt that counts.</summary>
    private static IQueryable<Artifact> ArtifactsOf(AppDbContext db, TrainingJob job) =>
        db.Artifacts.AsNoTracking().Where(artifact => artifact.JobId == job.Id && artifact.Attempt == job.Attempt);
}

/// <summary>Figures as columns: as many values in each as there are steps, null where a step has none.</summary>
internal sealed record MetricColumns(IReadOnlyList<int> Step, IReadOnlyDictionary<string, JsonNode?[]> Columns)
{
    public string Object { get; } = "job.metrics";

    /// <param name="rows">By step; a step may have several rows.</param>
    /// <param name="keys">The columns that are wanted; null: all.</param>
    public static MetricColumns From(IEnumerable<(int Step, string Json)> rows, IReadOnlyList<string>? keys)
    {
        var steps = rows.GroupBy(row => row.Step)
            .Select(group => (Step: group.Key, Values: Merge(group.Select(row => row.Json)))).ToList();
        if (keys is not null)
        {
            // A step that has nothing of what is asked for is left out.
            steps = [.. steps.Where(step => keys.Any(step.Values.ContainsKey))];
        }

        var names = keys ?? [.. steps.SelectMany(step => step.Values.Keys).Distinct().Order(StringComparer.Ordinal)];
        return new MetricColumns(
            [.. steps.Select(step => step.Step)],
            names.Distinct().ToDictionary(name => name, name => steps.Select(step => step.Values.GetValueOrDefault(name)?.DeepClone()).ToArray()));
    }

    private static Dictionary<string, JsonNode?> Merge(IEnumerable<string> rows) => rows
        .SelectMany(json => JsonSerializer.Deserialize<Dictionary<string, JsonNode?>>(json)!)
        .GroupBy(pair => pair.Key).ToDictionary(group => group.Key, group => group.Last().Value);
}
