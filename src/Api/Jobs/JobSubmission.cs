using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using TrainingService.Api.Http;
using TrainingService.Api.Models;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;
using TrainingService.Training;

namespace TrainingService.Api.Jobs;

/// <summary>Turns a request of either dialect into a waiting job, once.</summary>
internal sealed class JobSubmission(
    AppDbContext db, ModelRegistration registration, IJobQueue queue, TimeProvider clock, IOptions<JobOptions> options)
{
    /// <returns>The job, new or found again; or why there is none.</returns>
    public async Task<(TrainingJob? Job, ErrorResult? Refusal)> SubmitAsync(
        HttpContext context, Caller caller, JobRequest request, CancellationToken cancellationToken)
    {
        var idempotency = new Idempotency(context, caller, request.Request);
        var now = clock.GetUtcNow();
        if (await idempotency.FindAsync(db, now, cancellationToken) is { } earlier)
        {
            return (earlier, null);
        }

        var resolved = await SpecReferences.ResolveAsync(db, registration, options.Value, caller, request.Spec, cancellationToken);
        if (resolved.Spec is null || request.Errors.Count > 0)
        {
            return (null, ErrorResult.Invalid([.. request.Errors, .. Details(resolved.Errors, request.ToClientPath)]));
        }

        var job = TrainingJob.Submit(
            new NewJob
            {
                ProjectId = caller.ProjectId,
                SpecJson = JsonSerializer.Serialize(resolved.Spec, SpecJson.Compact),
                RequestJson = request.Request.GetRawText(),
                Model = request.Spec.GetProperty("model").GetString()!,
                Suffix = request.Labels.Suffix,
                MetadataJson = request.Labels.MetadataJson,
                Priority = request.Labels.Priority,
                MaxRunSeconds = request.Labels.MaxRunSeconds,
            },
            now);
        db.Jobs.Add(job);
        db.IdempotencyRecords.Add(idempotency.Remember(job));
        try
        {
            await db.SaveChangesAsync(cancellationToken);
        }
        catch (DbUpdateException)
        {
            // The same key was saved a moment ago by a twin of this request; anything else is a failure of ours.
            db.ChangeTracker.Clear();
            if (await idempotency.FindAsync(db, now, cancellationToken) is { } twin)
            {
                return (twin, null);
            }

            throw;
        }

        // From here the job is safe: a wake-up that gets lost is sent again by the reconciler.
        queue.Wake(job.Id);
        return (job, null);
    }

    public static IEnumerable<ErrorDetail> Details(IEnumerable<SpecError> errors, Func<string, string> toClientPath) =>
        errors.Select(error => ErrorDetail.Invalid(error.Code, error.Message, error.Path.Length == 0 ? null : toClientPath(error.Path)));
}
