using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Jobs;

/// <summary>Changing a job while its worker writes to the same row.</summary>
public static class JobChanges
{
    /// <summary>
    /// Reads one job, changes it and saves it with its history and events. A lost race is answered by reading again, never by
    /// overwriting.
    /// </summary>
    /// <param name="wanted">Which job, ownership included: <c>j => j.Id == id &amp;&amp; j.ProjectId == project</c>.</param>
    /// <param name="change">Domain methods, and rows added to <paramref name="db"/>. Runs again after a lost race, on a context that forgot the first try.</param>
    /// <returns>The changed job; null when no job is meant.</returns>
    public static async Task<TrainingJob?> ChangeJobAsync(
        this AppDbContext db,
        System.Linq.Expressions.Expression<Func<TrainingJob, bool>> wanted,
        Action<TrainingJob> change,
        CancellationToken cancellationToken)
    {
        while (true)
        {
            db.ChangeTracker.Clear();
            var job = await db.Jobs.SingleOrDefaultAsync(wanted, cancellationToken);
            if (job is null)
            {
                return null;
            }

            change(job);
            try
            {
                await db.SaveChangesAsync(cancellationToken);
                return job;
            }
            catch (DbUpdateConcurrencyException)
            {
                // The worker reported in between; its report stands, and the change is made to what it left.
            }
        }
    }
}
