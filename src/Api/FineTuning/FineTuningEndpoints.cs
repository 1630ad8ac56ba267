using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Http;
using TrainingService.Api.Jobs;
using TrainingService.Api.Models;
using TrainingService.Api.OpenApi;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;

namespace TrainingService.Api.FineTuning;

/// <summary>The dialect of OpenAI's clients over the same rows as <see cref="JobEndpoints"/>.</summary>
internal static class FineTuningEndpoints
{
    public static void MapFineTuning(this IEndpointRouteBuilder routes)
    {
        var jobs = routes.MapGroup("/v1/fine_tuning/jobs").WithTags("Fine-tuning (OpenAI-compatible)").RequireAuthorization();
        jobs.MapPost("", Create).WithSummary("Create a fine-tuning job").TakesFineTuningJob()
            .WithDescription("OpenAI's body. hyperparameters (n_epochs, batch_size, learning_rate_multiplier; \"auto\" or a number) become "
                + "schedule.epochs, schedule.batch_size and optimizer.learning_rate = 0.0002 × multiplier; auto is the default of the spec. "
                + "method.type is supervised, continued_pretraining, dpo, kto, orpo, simpo or reward; beta, of the middle four, is objective.beta. "
                + "batch_size counts rows: data.packing is false here unless it is given. "
                + "Every part of the training spec (data, objective, adapter, optimizer, schedule, …) may stand beside, and peft takes an "
                + "adapter in the field names of Hugging Face PEFT. A model ft:… continues a fine-tuned model.");
        jobs.MapGet("", List).WithSummary("List fine-tuning jobs, newest first")
            .WithDescription("metadata[key]=value keeps jobs that carry the pair.");
        jobs.MapGet("/{id}", Get).WithSummary("Read a fine-tuning job")
            .WithDescription("A job whose cancellation its worker has yet to obey is shown as running.");
        jobs.MapPost("/{id}/cancel", Cancel).WithSummary("Cancel a fine-tuning job");
        jobs.MapPost("/{id}/pause", Pause).WithSummary("Set a fine-tuning job aside")
            .WithDescription("A running job is shown as running, with pause_requested_at set, until its worker has saved a checkpoint; then it is paused.");
        jobs.MapPost("/{id}/resume", Resume).WithSummary("Let a paused fine-tuning job go on")
            .WithDescription("It goes on at the step at which it was paused. A pause that has not taken effect yet is withdrawn.");
        jobs.MapGet("/{id}/events", JobEndpoints.Events).WithSummary("List a job's events, newest first, or follow them")
            .WithDescription("With stream=true, or Accept: text/event-stream, as server-sent events; Last-Event-ID continues.");
        jobs.MapGet("/{id}/checkpoints", JobEndpoints.Checkpoints).WithSummary("List a job's checkpoints, newest first");
        jobs.MapGet("/{id}/metrics", JobResultEndpoints.Metrics).WithSummary("A job's figures as columns");
    }

    private static async Task<Results<Ok<FineTuningJobResponse>, ErrorResult>> Create(
        JsonElement body, HttpContext context, Caller caller, AppDbContext db, JobSubmission submission, TimeProvider clock,
        CancellationToken cancellationToken)
    {
        var request = await ContinueAsync(FineTuningRequest.Read(body), caller, db, cancellationToken);
        var (job, refusal) = await submission.SubmitAsync(context, caller, request, cancellationToken);
        return job is null ? refusal! : TypedResults.Ok(await ShowAsync(job, caller, db, clock, cancellationToken));
    }

    /// <summary>A fine-tuned model in the place of the base model: its base, and its adapter to start from.</summary>
    private static async Task<JobRequest> ContinueAsync(
        JobRequest request, Caller caller, AppDbContext db, CancellationToken cancellationToken)
    {
        var name = request.Spec.GetProperty("model") is { ValueKind: JsonValueKind.String } model ? model.GetString()! : "";
        if (!name.StartsWith(ModelQueries.FineTunedPrefix, StringComparison.Ordinal)
            || await db.FindFineTunedAsync(caller, name, cancellationToken) is not { } parent)
        {
            return request;
        }

        var parentSpec = Wire.Parse(parent.SpecJson)!.Value;
        var spec = JsonNode.Parse(request.Spec.GetRawText())!.AsObject();
        spec["model"] = parentSpec.GetProperty("model").GetString();

        // The adapter continues in the form that it was trained in, unless the client says otherwise.
        spec["adapter"] ??= JsonNode.Parse(parentSpec.GetProperty("adapter").GetRawText());
        if (spec["adapter"] is JsonObject adapter)
        {
            adapter["from"] = name;
        }

        return request with { Spec = JsonSerializer.SerializeToElement(spec) };
    }

    private static async Task<Ok<ListPage<FineTuningJobResponse>>> List(
        HttpContext context, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken,
        string? after = null, int? limit = null)
    {
        var size = ListPage.Limit(limit, 20, 100);
        var filter = new JobFilter { After = after, Metadata = JobFilter.MetadataOf(context.Request.Query) };
        var facts = await JobFacts.ReadAsync(db, await db.PageAsync(caller, filter, size, cancellationToken), clock, cancellationToken);
        return TypedResults.Ok(ListPage.Of(facts, size, row => FineTuningJobResponse.From(row, caller), job => job.Id));
    }

    private static async Task<Results<Ok<FineTuningJobResponse>, ErrorResult>> Get(
        string id, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken) =>
        await Show(await db.Jobs.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken), id, caller, db, clock, cancellationToken);

    private static async Task<Results<Ok<FineTuningJobResponse>, ErrorResult>> Cancel(
        string id, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken) =>
        await Show(
            await db.ChangeAsync(caller, id, (job, now) => job.Cancel(now), cancellationToken), id, caller, db, clock, cancellationToken);

    private static async Task<Results<Ok<FineTuningJobResponse>, ErrorResult>> Pause(
        string id, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken) =>
        await Show(
            await db.ChangeAsync(caller, id, (job, now) => job.Pause(now), cancellationToken), id, caller, db, clock, cancellationToken);

    private static async Task<Results<Ok<FineTuningJobResponse>, ErrorResult>> Resume(
        string id, Caller caller, AppDbContext db, IJobQueue queue, TimeProvider clock, CancellationToken cancellationToken)
    {
        var job = await db.ChangeAsync(caller, id, (job, now) => job.Resume(now), cancellationToken);
        if (job is not null)
        {
            queue.Wake(job.Id);
        }

        return await Show(job, id, caller, db, clock, cancellationToken);
    }

    private static async Task<Results<Ok<FineTuningJobResponse>, ErrorResult>> Show(
        TrainingJob? job, string id, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken) =>
        job is null
            ? ErrorResult.NotFound("fine-tuning job", id)
            : TypedResults.Ok(await ShowAsync(job, caller, db, clock, cancellationToken));

    private static async Task<FineTuningJobResponse> ShowAsync(
        TrainingJob job, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken) =>
        FineTuningJobResponse.From(await JobFacts.ReadAsync(db, job, clock, cancellationToken), caller);
}
