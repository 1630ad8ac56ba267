using System.Text.Json;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Http.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using TrainingService.Api.Http;
using TrainingService.Api.OpenApi;
using TrainingService.Domain;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Jobs;

internal static class JobEndpoints
{
    private const int LargestPage = 100;

    public static void MapJobs(this IEndpointRouteBuilder routes)
    {
        var jobs = routes.MapGroup("/v1/jobs").WithTags("Jobs").RequireAuthorization();
        jobs.MapPost("", Create).WithSummary("Create a job").TakesSpec(withLabels: true)
            .WithDescription("The body is a training spec; suffix, metadata, priority and max_run_seconds may stand beside its members. "
                + "A repeated Idempotency-Key with the same body answers with the job that it made.");
        jobs.MapGet("", List).WithSummary("List jobs, newest first")
            .WithDescription("metadata[key]=value keeps jobs that carry the pair. created_after and created_before are seconds since 1970.");
        jobs.MapPost("/estimate", JobEstimate.Estimate).WithSummary("Estimate what a job takes").TakesSpec(withLabels: false);
        jobs.MapGet("/{id}", Get).WithSummary("Read a job");
        jobs.MapPost("/{id}/cancel", Cancel).WithSummary("Cancel a job");
        jobs.MapPost("/{id}/pause", Pause).WithSummary("Set a job aside")
            .WithDescription("A waiting job is paused at once. A running one stays running, with pause_requested_at set, until its worker has saved "
                + "a checkpoint within seconds; then it is paused, and resume goes on at the same step.");
        jobs.MapPost("/{id}/resume", Resume).WithSummary("Let a paused job go on")
            .WithDescription("Puts it back in the queue. A pause that has not taken effect yet is withdrawn.");
        jobs.MapGet("/{id}/events", Events).WithSummary("A job's story, as list or as server-sent events")
            .WithDescription("With stream=true, or Accept: text/event-stream: what has happened, then what happens, until the job has ended. "
                + "Last-Event-ID continues a stream that was cut off.");
        jobs.MapGet("/{id}/checkpoints", Checkpoints).WithSummary("List a job's checkpoints, newest first");
        jobs.MapCheckpointFiles();
        jobs.MapJobResults();
    }

    private static async Task<Results<Created<JobResponse>, ErrorResult>> Create(
        JsonElement body, HttpContext context, Caller caller, AppDbContext db, JobSubmission submission, TimeProvider clock,
        CancellationToken cancellationToken)
    {
        var (job, refusal) = await submission.SubmitAsync(context, caller, NativeJobRequest.Read(body), cancellationToken);
        if (job is null)
        {
            return refusal!;
        }

        var shown = JobResponse.From(await JobFacts.ReadAsync(db, job, clock, cancellationToken));
        return TypedResults.Created($"/v1/jobs/{shown.Id}", shown);
    }

    private static async Task<Ok<ListPage<JobResponse>>> List(
        HttpContext context, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken,
        string? status = null, string? model = null, long? created_after = null, long? created_before = null, string? after = null, int? limit = null)
    {
        var size = ListPage.Limit(limit, 20, LargestPage);
        var filter = new JobFilter
        {
            Status = JobFilter.StatusOf(status),
            Model = model,
            CreatedAfter = Time(created_after, nameof(created_after)),
            CreatedBefore = Time(created_before, nameof(created_before)),
            After = after,
            Metadata = JobFilter.MetadataOf(context.Request.Query),
        };
        var facts = await JobFacts.ReadAsync(db, await db.PageAsync(caller, filter, size, cancellationToken), clock, cancellationToken);
        return TypedResults.Ok(ListPage.Of(facts, size, JobResponse.From, job => job.Id));
    }

    private static DateTimeOffset? Time(long? seconds, string name) => seconds switch
    {
        null => null,
        >= 0 and <= 253_402_300_799 => DateTimeOffset.FromUnixTimeSeconds(seconds.Value),
        _ => throw RequestException.Invalid("invalid_time", $"{name} must be seconds since 1970.", name),
    };

    private static async Task<Results<Ok<JobResponse>, ErrorResult>> Get(
        string id, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken) =>
        await Show(await db.Jobs.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken), id, db, clock, cancellationToken);

    private static async Task<Results<Ok<JobResponse>, ErrorResult>> Cancel(
        string id, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken) =>
        await Show(
            await db.ChangeAsync(caller, id, (job, now) => job.Cancel(now), cancellationToken), id, db, clock, cancellationToken);

    private static async Task<Results<Ok<JobResponse>, ErrorResult>> Pause(
        string id, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken) =>
        await Show(
            await db.ChangeAsync(caller, id, (job, now) => job.Pause(now), cancellationToken), id, db, clock, cancellationToken);

    private static async Task<Results<Ok<JobResponse>, ErrorResult>> Resume(
        string id, Caller caller, AppDbContext db, IJobQueue queue, TimeProvider clock, CancellationToken cancellationToken)
    {
        var job = await db.ChangeAsync(caller, id, (job, now) => job.Resume(now), cancellationToken);
        if (job is not null)
        {
            queue.Wake(job.Id);
        }

        return await Show(job, id, db, clock, cancellationToken);
    }

    private static async Task<Results<Ok<JobResponse>, ErrorResult>> Show(
        TrainingJob? job, string id, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken) =>
        job is null
            ? ErrorResult.NotFound("job", id)
            : TypedResults.Ok(JobResponse.From(await JobFacts.ReadAsync(db, job, clock, cancellationToken)));

    /// <summary>The same in both dialects.</summary>
    public static async Task<Results<Ok<ListPage<EventResponse>>, EventStream, ErrorResult>> Events(
        string id, HttpContext context, Caller caller, AppDbContext db, IOptions<JsonOptions> json, TimeProvider clock,
        IHostApplicationLifetime lifetime, CancellationToken cancellationToken,
        bool? stream = null, string? after = null, int? limit = null)
    {
        if (await db.FindKeyAsync(caller, id, cancellationToken) is not { } jobId)
        {
            return ErrorResult.NotFound("job", id);
        }

        if (EventStream.IsWanted(context.Request, stream))
        {
            return new EventStream(jobId, db, json.Value.SerializerOptions, clock, lifetime.ApplicationStopping);
        }

        var size = ListPage.Limit(limit, 20, 1000);
        var events = db.Events.AsNoTracking().Where(line => line.JobId == jobId);
        if (after is not null)
        {
            var last = PublicId.TryParse(PublicId.Event, after, out var key)
                ? await events.SingleOrDefaultAsync(line => line.Id == key, cancellationToken)
                : null;
            var sequence = last?.Sequence ?? throw ListPage.UnknownCursor(after);
            events = events.Where(line => line.Sequence < sequence);
        }

        var rows = await events.OrderByDescending(line => line.Sequence).Take(size + 1).ToListAsync(cancellationToken);
        return TypedResults.Ok(ListPage.Of(rows, size, EventResponse.From, line => line.Id));
    }

    /// <summary>The same in both dialects.</summary>
    public static async Task<Results<Ok<ListPage<CheckpointResponse>>, ErrorResult>> Checkpoints(
        string id, Caller caller, AppDbContext db, CancellationToken cancellationToken, string? after = null, int? limit = null)
    {
        var job = await db.Jobs.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken);
        if (job is null)
        {
            return ErrorResult.NotFound("job", id);
        }

        var size = ListPage.Limit(limit, 10, LargestPage);
        var checkpoints = db.Checkpoints.AsNoTracking().Where(checkpoint => checkpoint.JobId == job.Id);
        if (after is not null)
        {
            var last = PublicId.TryParse(PublicId.Checkpoint, after, out var key)
                ? await checkpoints.SingleOrDefaultAsync(checkpoint => checkpoint.Id == key, cancellationToken)
                : null;
            var (time, lastId) = last is null ? throw ListPage.UnknownCursor(after) : (last.CreatedAt, last.Id);
            checkpoints = checkpoints.Where(checkpoint =>
                checkpoint.CreatedAt < time || (checkpoint.CreatedAt == time && checkpoint.Id.CompareTo(lastId) < 0));
        }

        var rows = await checkpoints.OrderByDescending(checkpoint => checkpoint.CreatedAt).ThenByDescending(checkpoint => checkpoint.Id)
            .Take(size + 1).ToListAsync(cancellationToken);
        return TypedResults.Ok(ListPage.Of(rows, size, row => CheckpointResponse.From(row, job), checkpoint => checkpoint.Id));
    }
}
