using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using TrainingService.Domain;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Jobs;

/// <summary>Figures of the newest step of a running job.</summary>
internal sealed record StepFigures(double? Epoch, double? Loss, double? TokensPerSecond, long? SecondsRemaining);

/// <summary>A job and what is known of it beside its row. Both dialects are views of this.</summary>
internal sealed record JobFacts(TrainingJob Job, int? QueuePosition, StepFigures? LastStep, double? PhasePercent)
{
    private static readonly string[] MeasuredPhases = ["downloading", "tokenizing", "calibrating", "reference"];

    public IReadOnlyList<string> ResultFiles =>
        Job.ResultFileId is { } file ? [PublicId.Of(PublicId.File, file)] : [];

    public static async Task<JobFacts> ReadAsync(
        AppDbContext db, TrainingJob job, TimeProvider clock, CancellationToken cancellationToken) =>
        (await ReadAsync(db, [job], clock, cancellationToken))[0];

    public static async Task<List<JobFacts>> ReadAsync(
        AppDbContext db, IReadOnlyList<TrainingJob> jobs, TimeProvider clock, CancellationToken cancellationToken)
    {
        var queue = jobs.Any(job => job.Status == JobStatus.Queued)
            ? await QueueAsync(db, cancellationToken)
            : [];
        var facts = new List<JobFacts>(jobs.Count);
        foreach (var job in jobs)
        {
            int? position = queue.TryGetValue(job.Id, out var place) ? place : null;
            var last = job.Step > 0 ? await LastStepAsync(db, job, clock.GetUtcNow(), cancellationToken) : null;
            var percent = job.Status == JobStatus.Running && MeasuredPhases.Contains(job.Phase)
                ? await PhasePercentAsync(db, job.Id, cancellationToken)
                : null;
            facts.Add(new JobFacts(job, job.Status == JobStatus.Queued ? position : null, last, percent));
        }

        return facts;
    }

    /// <summary>Place of each waiting job in the order in which workers take them, all projects together.</summary>
    private static async Task<Dictionary<Guid, int>> QueueAsync(AppDbContext db, CancellationToken cancellationToken)
    {
        var waiting = await db.Jobs.Where(job => job.Status == JobStatus.Queued)
            .OrderByDescending(job => job.Priority).ThenBy(job => job.CreatedAt)
            .Select(job => job.Id).ToListAsync(cancellationToken);
        return waiting.Select((id, index) => (id, index)).ToDictionary(pair => pair.id, pair => pair.index + 1);
    }

    private static async Task<StepFigures?> LastStepAsync(
        AppDbContext db, TrainingJob job, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var json = await db.Metrics.AsNoTracking()
            .Where(metric => metric.JobId == job.Id && metric.Kind == "train")
            .OrderByDescending(metric => metric.Step).Select(metric => metric.ValuesJson).FirstOrDefaultAsync(cancellationToken);
        if (json is null)
        {
            return null;
        }

        var values = JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(json)!;
        return new StepFigures(
            Number(values, "epoch"), Number(values, "train/loss"), Number(values, "tokens_per_second"),
            Remaining(job, now));
    }

    /// <summary>Of the newest line of the job's story, when it tells of bytes or rows.</summary>
    private static async Task<double?> PhasePercentAsync(AppDbContext db, Guid job, CancellationToken cancellationToken)
    {
        var json = await db.Events.AsNoTracking().Where(line => line.JobId == job)
            .OrderByDescending(line => line.Sequence).Select(line => line.DataJson).FirstOrDefaultAsync(cancellationToken);
        if (json is null)
        {
            return null;
        }

        var values = JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(json)!;
        var done = Number(values, "read_bytes") ?? Number(values, "downloaded_bytes") ?? Number(values, "read_rows");
        return done is not null && (Number(values, "total_bytes") ?? Number(values, "total_rows")) is > 0 and { } total
            ? Math.Round(Math.Min(100, 100 * done.Value / total), 2)
            : null;
    }

    private static double? Number(Dictionary<string, JsonElement> values, string name) =>
        values.TryGetValue(name, out var value) && value.ValueKind == JsonValueKind.Number ? value.GetDouble() : null;

    /// <summary>At the pace so far. The start-up of the run counts in, so it is a little too long rather than too short.</summary>
    private static long? Remaining(TrainingJob job, DateTimeOffset now)
    {
        if (job.Status != JobStatus.Running || job is not { StartedAt: { } started, Step: > 0, TotalSteps: > 0 })
        {
            return null;
        }

        var perStep = (now - started).TotalSeconds / job.Step;
        return (long)Math.Ceiling(perStep * Math.Max(0, job.TotalSteps - job.Step));
    }
}
