using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Jobs;

/// <summary>What finished jobs took. Figures of the machines, of all projects: nothing of a job's own can be told from them.</summary>
public static class PastRuns
{
    /// <summary>Enough to hold every kind of run that is usual here, and few enough to read for each estimate.</summary>
    private const int Newest = 100;

    /// <summary>Cost as stored and seconds of all attempts, newest first.</summary>
    public static async Task<IReadOnlyList<(string CostJson, double Seconds)>> ReadAsync(AppDbContext db, CancellationToken cancellationToken)
    {
        // Ids rise with time, and have an index.
        var rows = await db.Jobs.AsNoTracking()
            .Where(job => job.Status == JobStatus.Succeeded && job.ActualCostJson != null)
            .OrderByDescending(job => job.Id).Take(Newest)
            .Select(job => new { job.ActualCostJson, job.RunSeconds })
            .ToListAsync(cancellationToken);
        return [.. rows.Select(row => (row.ActualCostJson!, row.RunSeconds))];
    }
}
