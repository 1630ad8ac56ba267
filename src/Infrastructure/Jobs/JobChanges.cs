using System.Linq.Expressions;
using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Jobs;

/// <summary>Changing a job while its worker writes to the same row.</summary>
public static class JobChanges
{
    /// <summary>As below, with the database's time: the only clock that a job's life is told by.</summary>
    public static Task<TrainingJob?> ChangeJobAsync(
        this AppDbContext db,
        Expression<Func<TrainingJob, bool>> wanted,
        Action<TrainingJob, DateTimeOffset> change,
        CancellationToken cancellationToken) => ChangeAsync(db, wanted, change, cancellationToken);

    /// <summary>
    /// Reads one job, changes it and saves it with its history and events. A lost race is answered by reading again, never by
    /// overwriting.
    /// </summary>
    /// <param name="wanted">Which job, ownership included: <c>j => j.Id == id &amp;&amp; j.ProjectId == project</c>.</param>
    /// <param name="change">Domain methods, and rows added to <paramref name="db"/>. Runs again after a lost race, on a context that forgot the first try.</param>
    /// <returns>The changed job; null when no job is meant.</returns>
    public static Task<TrainingJob?> ChangeJobAsync(
        this AppDbContext db,
        Expression<Func<TrainingJob, bool>> wanted,
        Action<TrainingJob> change,
        CancellationToken cancellationToken) => ChangeAsync(db, wanted, (job, _) => change(job), cancellationToken);

    private static async Task<TrainingJob?> ChangeAsync(
        AppDbContext db,
        Expression<Func<TrainingJob, bool>> wanted,
        Action<TrainingJob, DateTimeOffset> change,
        CancellationToken cancellationToken)
    {
        while (true)
        {
            db.ChangeTracker.Clear();
            try
            {
                await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
                await LockAsync(db, wanted, cancellationToken);
                var job = await db.Jobs.SingleOrDefaultAsync(wanted, cancellationToken);
                if (job is null)
                {
                    return null;
                }

                change(job, await db.NowAsync(cancellationToken));
                await db.SaveChangesAsync(cancellationToken);
                await transaction.CommitAsync(cancellationToken);
                return job;
            }
            catch (DbUpdateConcurrencyException)
            {
                // Somebody who takes no lock was faster; that change stands, and ours is made to what it left.
            }
        }
    }

    /// <summary>Waits for the worker's current write, where the database does not let writers take turns anyway.</summary>
    private static async Task LockAsync(
        AppDbContext db, Expression<Func<TrainingJob, bool>> wanted, CancellationToken cancellationToken)
    {
        if (db.LockJobSql is { } sql)
        {
            foreach (var id in await db.Jobs.AsNoTracking().Where(wanted).Select(j => j.Id).ToListAsync(cancellationToken))
            {
                await db.Database.ExecuteSqlRawAsync(sql, [id], cancellationToken);
            }
        }
    }
}
