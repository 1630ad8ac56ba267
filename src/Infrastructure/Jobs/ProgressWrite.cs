using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Jobs;

/// <summary>One transaction of progress, metrics and events under the token of a lease.</summary>
internal static class ProgressWrite
{
    /// <param name="again">The batch was sent before, and its answer was lost: it may be stored already.</param>
    /// <returns>Whether the lease holds; nothing is written when it does not.</returns>
    public static async Task<bool> RunAsync(
        AppDbContext db, JobLease lease, ProgressBatch batch, bool again, CancellationToken cancellationToken)
    {
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        if (await AdvanceAsync(db, lease, batch, cancellationToken) is not { } last)
        {
            return false;
        }

        if (again && batch.Events.Count > 0
            && await db.Events.AsNoTracking().AnyAsync(e => e.Id == batch.Events[0].Id, cancellationToken))
        {
            return true;   // rolls back what was just reserved
        }

        var before = last - batch.Events.Count;
        var now = await db.NowAsync(cancellationToken);
        var at = await db.Events.AsNoTracking().Where(e => e.JobId == lease.JobId && e.Sequence <= before)
            .OrderByDescending(e => e.Sequence).Select(e => e.CreatedAt).FirstOrDefaultAsync(cancellationToken);
        for (var i = 0; i < batch.Events.Count; i++)
        {
            var line = batch.Events[i];

            // The lines waited for this write, and were timed by another clock: the story stays in the order of its numbers.
            at = Later(at, Earlier(line.At, now));
            db.Events.Add(new JobEvent
            {
                Id = line.Id,
                JobId = lease.JobId,
                Sequence = before + i + 1,
                Level = line.Level,
                Type = line.Type,
                Message = line.Message,
                DataJson = line.DataJson,
                CreatedAt = at,
            });
        }

        await db.SaveChangesAsync(cancellationToken);
        foreach (var metric in batch.Metrics)
        {
            await UpsertAsync(db, lease, metric, cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);
        return true;
    }

    private static DateTimeOffset Later(DateTimeOffset first, DateTimeOffset second) => first > second ? first : second;

    private static DateTimeOffset Earlier(DateTimeOffset first, DateTimeOffset second) => first < second ? first : second;

    /// <summary>Moves the row on and reserves the numbers of the batch's events. The row stays locked until the transaction ends,
    /// so events become visible in the order of their numbers.</summary>
    private static async Task<long?> AdvanceAsync(
        AppDbContext db, JobLease lease, ProgressBatch batch, CancellationToken cancellationToken)
    {
        var sql = $$"""
            UPDATE jobs SET
                last_event_sequence = last_event_sequence + {2}, phase = COALESCE({3}, phase), step = COALESCE({4}, step),
                total_steps = COALESCE({5}, total_steps), trained_tokens = COALESCE({6}, trained_tokens),
                estimated_cost_json = COALESCE({7}, estimated_cost_json),
                last_progress_at = {{db.NowSql}}, stalled_since = NULL {{db.TouchSql}}
            WHERE {{JobLease.Held}} RETURNING last_event_sequence AS "Value"
            """;
        var rows = await db.Database.SqlQueryRaw<long>(
            sql, lease.JobId, lease.Token, batch.Events.Count, batch.Phase!, batch.Step!, batch.TotalSteps!, batch.TrainedTokens!,
            batch.EstimatedCostJson!)
            .ToListAsync(cancellationToken);
        return rows.Count == 1 ? rows[0] : null;
    }

    private static async Task UpsertAsync(AppDbContext db, JobLease lease, MetricLine metric, CancellationToken cancellationToken)
    {
        // Within one attempt the figures of a step add up; a later attempt's replace those of an earlier one.
        var sql = $$"""
            INSERT INTO job_metrics (job_id, step, kind, attempt, values_json, created_at)
            VALUES ({0}, {1}, {2}, {3}, {{db.JsonSql("{4}")}}, {5})
            ON CONFLICT (job_id, step, kind) DO UPDATE SET
                values_json = CASE WHEN job_metrics.attempt = excluded.attempt
                    THEN {{db.MergedJsonSql("job_metrics.values_json", "excluded.values_json")}} ELSE excluded.values_json END,
                attempt = excluded.attempt, created_at = excluded.created_at
            """;
        object[] values = [lease.JobId, metric.Step, metric.Kind, lease.Attempt, metric.ValuesJson, db.TimeParameter(metric.At)];
        await db.Database.ExecuteSqlRawAsync(sql, values, cancellationToken);
    }
}
