using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Http;
using TrainingService.Domain;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.Api.Jobs;

internal static class JobQueries
{
    public static IQueryable<TrainingJob> OwnedBy(this IQueryable<TrainingJob> jobs, Caller caller) =>
        jobs.Where(job => job.ProjectId == caller.ProjectId);

    public static async Task<TrainingJob?> FindOwnedAsync(
        this IQueryable<TrainingJob> jobs, Caller caller, string id, CancellationToken cancellationToken) =>
        PublicId.TryParse(PublicId.Job, id, out var key)
            ? await jobs.OwnedBy(caller).SingleOrDefaultAsync(job => job.Id == key, cancellationToken)
            : null;

    /// <summary>Key of the caller's job; null when there is none.</summary>
    public static async Task<Guid?> FindKeyAsync(
        this AppDbContext db, Caller caller, string id, CancellationToken cancellationToken) =>
        PublicId.TryParse(PublicId.Job, id, out var key)
        && await db.Jobs.OwnedBy(caller).AnyAsync(job => job.Id == key, cancellationToken)
            ? key
            : null;

    /// <summary>A page of jobs, newest first, stable while jobs are added.</summary>
    public static async Task<List<TrainingJob>> PageAsync(
        this AppDbContext db, Caller caller, JobFilter filter, int size, CancellationToken cancellationToken)
    {
        var jobs = filter.Apply(db.Jobs.AsNoTracking().OwnedBy(caller));
        if (filter.After is { } after)
        {
            var last = await db.Jobs.AsNoTracking().FindOwnedAsync(caller, after, cancellationToken) ?? throw ListPage.UnknownCursor(after);
            jobs = jobs.Where(job =>
                job.CreatedAt < last.CreatedAt || (job.CreatedAt == last.CreatedAt && job.Id.CompareTo(last.Id) < 0));
        }

        var sorted = jobs.OrderByDescending(job => job.CreatedAt).ThenByDescending(job => job.Id);
        if (filter.Metadata.Count == 0)
        {
            return await sorted.Take(size + 1).ToListAsync(cancellationToken);
        }

        // The two databases have no JSON query in common, so the pairs are compared here, over the narrowest rows that do.
        var matches = new List<Guid>();
        await foreach (var row in sorted.Select(job => new { job.Id, job.MetadataJson }).AsAsyncEnumerable().WithCancellation(cancellationToken))
        {
            if (filter.MatchesMetadata(row.MetadataJson))
            {
                matches.Add(row.Id);
                if (matches.Count > size)
                {
                    break;
                }
            }
        }

        return await db.Jobs.AsNoTracking().Where(job => matches.Contains(job.Id))
            .OrderByDescending(job => job.CreatedAt).ThenByDescending(job => job.Id).ToListAsync(cancellationToken);
    }

    /// <summary>Applies a change that the job's life allows, whatever its worker writes meanwhile.</summary>
    /// <returns>The changed job; null when the caller has no such job.</returns>
    public static async Task<TrainingJob?> ChangeAsync(
        this AppDbContext db, Caller caller, string id, Action<TrainingJob, DateTimeOffset> change, CancellationToken cancellationToken) =>
        PublicId.TryParse(PublicId.Job, id, out var key)
            ? await db.ChangeJobAsync(job => job.Id == key && job.ProjectId == caller.ProjectId, change, cancellationToken)
            : null;
}
