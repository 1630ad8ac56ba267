using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Jobs;

/// <summary>
/// One attempt's right to write. Every write carries the token; when it changes no row, <see cref="LeaseLostException"/> says that
/// the job is somebody else's now.
/// </summary>
public sealed class JobLease
{
    private const string Held = "id = {0} AND lease_token = {1} AND status IN ('running', 'cancelling')";

    private readonly IDbContextFactory<AppDbContext> _contexts;
    private readonly TimeProvider _clock;

    internal JobLease(
        IDbContextFactory<AppDbContext> contexts, TimeProvider clock, Guid jobId, Guid projectId, int attempt, long token)
    {
        _contexts = contexts;
        _clock = clock;
        JobId = jobId;
        ProjectId = projectId;
        Attempt = attempt;
        Token = token;
    }

    public Guid JobId { get; }

    public Guid ProjectId { get; }

    public int Attempt { get; }

    public long Token { get; }

    /// <summary>Where the attempt's artifacts stand in the artifact store; ends with a slash.</summary>
    public string StoragePrefix => $"projects/{ProjectId:N}/jobs/{JobId:N}/attempt-{Attempt}/";

    /// <summary>Keeps the lease for another while.</summary>
    /// <returns>Whether the job's owner has asked for its end.</returns>
    public async Task<bool> RenewAsync(TimeSpan lease, CancellationToken cancellationToken)
    {
        await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
        var sql = $$"""
            UPDATE jobs SET lease_expires_at = {{db.LaterSql("{2}")}} {{db.TouchSql}} WHERE {{Held}} RETURNING status AS "Value"
            """;
        var status = await db.Database.SqlQueryRaw<string>(sql, JobId, Token, lease.TotalSeconds).ToListAsync(cancellationToken);
        return One(status) == "cancelling";
    }

    /// <summary>Whether the job's owner has asked for its end. Reads only.</summary>
    public async Task<bool> IsCancelRequestedAsync(CancellationToken cancellationToken)
    {
        await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
        var status = await Mine(db).AsNoTracking().Select(j => j.Status).ToListAsync(cancellationToken);
        return One(status) == JobStatus.Cancelling;
    }

    /// <summary>Stores what the run has reported: progress, metrics and events, all or nothing.</summary>
    public async Task ReportAsync(ProgressBatch batch, CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                await TryReportAsync(batch, cancellationToken);
                return;
            }
            catch (DbUpdateConcurrencyException)
            {
                // The job's owner changed the row at the same moment; nothing of the batch is stored yet.
            }
        }
    }

    /// <summary>Makes a checkpoint known that is complete in the artifact store.</summary>
    public Task AddCheckpointAsync(JobCheckpoint checkpoint, string message, CancellationToken cancellationToken) =>
        ChangeAsync(
            (db, job, now) =>
            {
                db.Checkpoints.Add(checkpoint);
                job.Record(EventLevel.Info, JobEvent.MessageType, message, null, now);
            },
            cancellationToken);

    /// <summary>Ends the job with its result; the artifacts and the curve become known in the same transaction.</summary>
    public Task SucceedAsync(
        string fineTunedModel, IReadOnlyList<Artifact> artifacts, DataFile? results, CancellationToken cancellationToken) =>
        ChangeAsync(
            (db, job, now) =>
            {
                db.Artifacts.AddRange(artifacts);
                if (results is not null)
                {
                    db.Files.Add(results);
                }

                job.Succeed(fineTunedModel, results?.Id, now);
            },
            cancellationToken);

    /// <summary>Ends the job without a result; what it left behind (its log) becomes known.</summary>
    public Task FailAsync(JobFailure failure, IReadOnlyList<Artifact> artifacts, CancellationToken cancellationToken) =>
        ChangeAsync(
            (db, job, now) =>
            {
                db.Artifacts.AddRange(artifacts);
                job.Fail(failure, now);
            },
            cancellationToken);

    public Task ConfirmCancelledAsync(IReadOnlyList<Artifact> artifacts, CancellationToken cancellationToken) =>
        ChangeAsync(
            (db, job, now) =>
            {
                db.Artifacts.AddRange(artifacts);
                job.ConfirmCancelled(now);
            },
            cancellationToken);

    /// <summary>Gives the job back to the queue; ends it instead when its owner has asked for that meanwhile.</summary>
    public Task RequeueAsync(string reason, TimeSpan delay, CancellationToken cancellationToken) =>
        ChangeAsync(
            (_, job, now) =>
            {
                if (job.Status == JobStatus.Cancelling)
                {
                    job.ConfirmCancelled(now);
                }
                else
                {
                    job.Requeue(reason, workerLost: false, now + delay, now);
                }
            },
            cancellationToken);

    private async Task TryReportAsync(ProgressBatch batch, CancellationToken cancellationToken)
    {
        await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var last = await AdvanceAsync(db, batch, cancellationToken);
        for (var i = 0; i < batch.Events.Count; i++)
        {
            var line = batch.Events[i];
            db.Events.Add(new JobEvent
            {
                Id = Guid.CreateVersion7(line.At),
                JobId = JobId,
                Sequence = last - batch.Events.Count + i + 1,
                Level = line.Level,
                Type = line.Type,
                Message = line.Message,
                DataJson = line.DataJson,
                CreatedAt = line.At,
            });
        }

        await db.SaveChangesAsync(cancellationToken);
        foreach (var metric in batch.Metrics)
        {
            await UpsertAsync(db, metric, cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);
    }

    private T One<T>(List<T> rows) => rows.Count == 1 ? rows[0] : throw new LeaseLostException(JobId, Token);

    private IQueryable<TrainingJob> Mine(AppDbContext db) => db.Jobs.Where(
        j => j.Id == JobId && j.LeaseToken == Token && (j.Status == JobStatus.Running || j.Status == JobStatus.Cancelling));

    /// <summary>Moves the row on and reserves the numbers of the batch's events. The row stays locked until the transaction ends,
    /// so events become visible in the order of their numbers.</summary>
    private async Task<long> AdvanceAsync(AppDbContext db, ProgressBatch batch, CancellationToken cancellationToken)
    {
        var sql = $$"""
            UPDATE jobs SET
                last_event_sequence = last_event_sequence + {2}, phase = COALESCE({3}, phase), step = COALESCE({4}, step),
                total_steps = COALESCE({5}, total_steps), trained_tokens = COALESCE({6}, trained_tokens),
                last_progress_at = {{db.NowSql}} {{db.TouchSql}}
            WHERE {{Held}} RETURNING last_event_sequence AS "Value"
            """;
        return One(await db.Database.SqlQueryRaw<long>(
            sql, JobId, Token, batch.Events.Count, batch.Phase!, batch.Step!, batch.TotalSteps!, batch.TrainedTokens!)
            .ToListAsync(cancellationToken));
    }

    private async Task UpsertAsync(AppDbContext db, MetricLine metric, CancellationToken cancellationToken)
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
        object[] values = [JobId, metric.Step, metric.Kind, Attempt, metric.ValuesJson, db.TimeParameter(metric.At)];
        await db.Database.ExecuteSqlRawAsync(sql, values, cancellationToken);
    }

    private async Task ChangeAsync(Action<AppDbContext, TrainingJob, DateTimeOffset> change, CancellationToken cancellationToken)
    {
        await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
        var now = await db.NowAsync(cancellationToken);
        var job = await db.ChangeJobAsync(
            j => j.Id == JobId && j.LeaseToken == Token && (j.Status == JobStatus.Running || j.Status == JobStatus.Cancelling),
            j => change(db, j, now),
            cancellationToken);
        if (job is null)
        {
            throw new LeaseLostException(JobId, Token);
        }
    }
}
