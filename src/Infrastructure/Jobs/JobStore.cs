using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Jobs;

/// <summary>Claims jobs for workers, and takes them back from lost ones.</summary>
public sealed class JobStore(IDbContextFactory<AppDbContext> contexts, TimeProvider clock)
{
    /// <summary>
    /// Takes the best waiting job: highest priority, then the project with the fewest running jobs, then age. One statement, so no
    /// job is given to two workers; its history and event are in the same transaction.
    /// </summary>
    /// <remarks>When the answer of its commit is lost, nobody runs the claimed job until its lease ends and the reconciler takes it back.</remarks>
    /// <returns>The lease; null when nothing waits.</returns>
    public async Task<JobLease?> ClaimAsync(string worker, TimeSpan lease, CancellationToken cancellationToken)
    {
        var requested = clock.GetTimestamp();
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var materialized = db.SkipLockedSql.Length > 0 ? "MATERIALIZED" : "";
        var sql = $$"""
            WITH busy AS (
                SELECT project_id, count(*) AS running FROM jobs WHERE status IN ('running', 'cancelling') GROUP BY project_id),
            candidate AS {{materialized}} (
                SELECT j.id FROM jobs AS j LEFT JOIN busy AS b ON b.project_id = j.project_id
                WHERE j.status = 'queued' AND (j.not_before IS NULL OR j.not_before <= {{db.NowSql}})
                ORDER BY j.priority DESC, COALESCE(b.running, 0), j.created_at, j.id
                LIMIT 1 {{db.SkipLockedSql}})
            UPDATE jobs SET
                status = 'running', attempt = attempt + 1, lease_token = lease_token + 1, lease_owner = {0},
                lease_expires_at = {{db.LaterSql("{1}")}}, last_progress_at = {{db.NowSql}},
                attempt_started_at = {{db.NowSql}}, stalled_since = NULL,
                started_at = COALESCE(started_at, {{db.NowSql}}), last_event_sequence = last_event_sequence + 1 {{db.TouchSql}}
            WHERE id IN (SELECT id FROM candidate) AND status = 'queued'
            RETURNING id AS "JobId", project_id AS "ProjectId", attempt AS "Attempt", lease_token AS "LeaseToken",
                failure_count AS "FailureCount", run_seconds AS "RunSeconds", max_run_seconds AS "MaxRunSeconds",
                last_event_sequence AS "EventSequence", {{db.NowMicrosecondsSql}} AS "NowMicroseconds"
            """;
        var rows = await db.Database.SqlQueryRaw<ClaimedJob>(sql, worker, lease.TotalSeconds).ToListAsync(cancellationToken);
        if (rows.Count == 0)
        {
            return null;
        }

        var claimed = rows[0];
        var now = claimed.Now;
        var history = $$"""
            INSERT INTO job_transitions (job_id, ordinal, status, at, reason)
            SELECT {0}, COALESCE(MAX(ordinal), 0) + 1, 'running', {{db.NowSql}}, {1} FROM job_transitions WHERE job_id = {0}
            """;
        await db.Database.ExecuteSqlRawAsync(history, [claimed.JobId, $"claimed by {worker}"], cancellationToken);
        db.Events.Add(new JobEvent
        {
            Id = Guid.CreateVersion7(now),
            JobId = claimed.JobId,
            Sequence = claimed.EventSequence,
            Level = EventLevel.Info,
            Type = JobEvent.MessageType,
            Message = TrainingJob.StartedMessage(claimed.Attempt),
            CreatedAt = now,
        });
        await db.SaveChangesAsync(cancellationToken);

        // A worker that is told to stop in this moment must know that it holds the job.
        await transaction.CommitAsync(CancellationToken.None);
        return new JobLease(contexts, clock, claimed, lease, requested);
    }

    /// <summary>
    /// Takes jobs back from lost workers: into the queue with a growing delay, to <c>worker_lost</c> above the cap, to
    /// <c>cancelled</c> or <c>paused</c> when their owner had asked for that.
    /// </summary>
    /// <param name="expiredOnly">Only jobs whose lease has run out by the database's clock.</param>
    /// <param name="maxRecoveries">A job that has already come back this often fails.</param>
    /// <param name="backOff">Delay after the first loss; it doubles with each further one, up to ten minutes.</param>
    /// <returns>How many jobs were taken back.</returns>
    public async Task<int> RecoverAsync(bool expiredOnly, int maxRecoveries, TimeSpan backOff, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var now = await db.NowAsync(cancellationToken);
        var lost = await db.Jobs.AsNoTracking()
            .Where(j => (j.Status == JobStatus.Running || j.Status == JobStatus.Cancelling) && (!expiredOnly || j.LeaseExpiresAt < now))
            .Select(j => new { j.Id, j.LeaseToken })
            .ToListAsync(cancellationToken);
        var recovered = 0;
        foreach (var row in lost)
        {
            // The token and the lease are asked for again: the worker may have renewed it, or another one may have claimed the job.
            var job = await db.ChangeJobAsync(
                j => j.Id == row.Id && j.LeaseToken == row.LeaseToken
                    && (j.Status == JobStatus.Running || j.Status == JobStatus.Cancelling) && (!expiredOnly || j.LeaseExpiresAt < now),
                j => TakeBack(j, maxRecoveries, backOff, now),
                cancellationToken);
            recovered += job is null ? 0 : 1;
        }

        return recovered;
    }

    /// <summary>
    /// Looks for running jobs whose worker is alive and that make no progress: says so once, and gives them another attempt when it
    /// goes on. The worker finds its lease lost, and stops what hangs.
    /// </summary>
    /// <param name="maxFailures">A job that has already failed this often fails for good.</param>
    /// <param name="backOff">Delay after the first failure; it doubles with each further one, up to ten minutes.</param>
    /// <returns>How many jobs were taken from their workers.</returns>
    public async Task<int> CheckProgressAsync(
        TimeSpan warnAfter, TimeSpan endAfter, int maxFailures, TimeSpan backOff, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var now = await db.NowAsync(cancellationToken);
        var (warn, end) = (now - warnAfter, now - endAfter);
        var first = warn > end ? warn : end;
        var silent = await db.Jobs.AsNoTracking()
            .Where(j => j.Status == JobStatus.Running && j.LastProgressAt < first && (j.StalledSince == null || j.LastProgressAt < end))
            .Select(j => new { j.Id, j.LeaseToken, Over = j.LastProgressAt < end })
            .ToListAsync(cancellationToken);
        var ended = 0;
        foreach (var row in silent)
        {
            // Asked for again: it may have reported meanwhile.
            var job = await db.ChangeJobAsync(
                j => j.Id == row.Id && j.LeaseToken == row.LeaseToken && j.Status == JobStatus.Running && j.LastProgressAt < (row.Over ? end : warn),
                j => Unstall(j, row.Over, maxFailures, backOff, now),
                cancellationToken);
            ended += job is not null && row.Over ? 1 : 0;
        }

        return ended;
    }

    /// <summary>Waiting jobs that a worker may take now, best first.</summary>
    public async Task<IReadOnlyList<Guid>> EligibleAsync(int limit, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var now = await db.NowAsync(cancellationToken);
        return await db.Jobs.AsNoTracking()
            .Where(j => j.Status == JobStatus.Queued && (j.NotBefore == null || j.NotBefore <= now))
            .OrderByDescending(j => j.Priority).ThenBy(j => j.CreatedAt)
            .Select(j => j.Id)
            .Take(limit)
            .ToListAsync(cancellationToken);
    }

    private static void TakeBack(TrainingJob job, int maxRecoveries, TimeSpan backOff, DateTimeOffset now)
    {
        if (job.Status == JobStatus.Cancelling)
        {
            job.ConfirmCancelled(now);
        }
        else if (job.RecoveryCount >= maxRecoveries && job.PauseRequestedAt is null)
        {
            var message = $"The job lost its worker {job.RecoveryCount + 1} times; ask the operator to look at the workers' logs.";
            job.Fail(new JobFailure(FailureCodes.WorkerLost, message, null, null), now);
        }
        else
        {
            job.Requeue("its worker was lost", RequeueCause.WorkerLost, now + Delay(backOff, job.RecoveryCount), now);
        }
    }

    private static void Unstall(TrainingJob job, bool over, int maxFailures, TimeSpan backOff, DateTimeOffset now)
    {
        if (!over)
        {
            job.MarkStalled(now);
            return;
        }

        var minutes = FormattableString.Invariant($"{(now - job.LastProgressAt!.Value).TotalMinutes:0.#}");
        if (job.FailureCount >= maxFailures && job.PauseRequestedAt is null)
        {
            var message = $"The job made no progress for {minutes} minutes, and had failed {job.FailureCount} times before; ask the operator to look at the workers' logs.";
            job.Fail(new JobFailure(FailureCodes.Internal, message, null, null), now);
        }
        else
        {
            job.Requeue($"it made no progress for {minutes} minutes", RequeueCause.PlatformFailure, now + Delay(backOff, job.FailureCount), now);
        }
    }

    private static TimeSpan Delay(TimeSpan backOff, int before) =>
        TimeSpan.FromSeconds(Math.Min(backOff.TotalSeconds * Math.Pow(2, Math.Min(before, 20)), 600));
}
