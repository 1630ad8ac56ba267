using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Jobs;

/// <summary>
/// One attempt's right to write. Every write carries the token; when it changes no row, <see cref="LeaseLostException"/> says that
/// the job is somebody else's now. Any write may be asked for again when its answer was lost: what is stored already counts as done.
/// </summary>
public sealed class JobLease
{
    internal const string Held = "id = {0} AND lease_token = {1} AND status IN ('running', 'cancelling')";

    private const string RequestSql =
        "CASE WHEN status = 'cancelling' THEN 'Cancel' WHEN pause_requested_at IS NOT NULL THEN 'Pause' ELSE 'None' END";

    private readonly IDbContextFactory<AppDbContext> _contexts;
    private readonly TimeProvider _clock;
    private readonly TimeSpan _databaseAhead;
    private readonly Lock _gate = new();
    private TimeSpan _lifetime;
    private long _renewed;
    private ProgressBatch? _reported;
    private (Guid Event, JobStatus Status)? _unanswered;

    /// <param name="requested">The monotonic time before the claim was sent: the lease began then or later.</param>
    internal JobLease(IDbContextFactory<AppDbContext> contexts, TimeProvider clock, ClaimedJob job, TimeSpan lifetime, long requested)
    {
        _contexts = contexts;
        _clock = clock;
        _lifetime = lifetime;
        _renewed = requested;
        _databaseAhead = job.Now - clock.GetUtcNow();
        JobId = job.JobId;
        ProjectId = job.ProjectId;
        Attempt = job.Attempt;
        Token = job.LeaseToken;
        FailureCount = job.FailureCount;
        RunSeconds = job.RunSeconds;
        MaxRunSeconds = job.MaxRunSeconds;
    }

    public Guid JobId { get; }

    public Guid ProjectId { get; }

    public int Attempt { get; }

    public long Token { get; }

    /// <summary>Where the attempt's artifacts stand in the artifact store; ends with a slash.</summary>
    public string StoragePrefix => $"projects/{ProjectId:N}/jobs/{JobId:N}/attempt-{Attempt}/";

    /// <summary>Failures of the platform before this attempt.</summary>
    public int FailureCount { get; }

    /// <summary>Seconds that earlier attempts ran.</summary>
    public double RunSeconds { get; }

    /// <summary>Seconds that all attempts may run together; null: the job itself sets no limit.</summary>
    public int? MaxRunSeconds { get; }

    /// <summary>
    /// How much of the lease is left at least, by the machine's monotonic clock: it goes on while a process is stopped, and nobody
    /// sets it.
    /// </summary>
    public TimeSpan Remaining
    {
        get
        {
            lock (_gate)
            {
                return _lifetime - _clock.GetElapsedTime(_renewed);
            }
        }
    }

    /// <summary>The database's time, as the claim saw it, carried on by the local clock.</summary>
    public DateTimeOffset Now() => _clock.GetUtcNow() + _databaseAhead;

    /// <summary>Keeps the lease for another while. It works after the lease has run out, as long as nobody else has taken the job.</summary>
    public async Task<OwnerRequest> RenewAsync(TimeSpan lease, CancellationToken cancellationToken)
    {
        var requested = _clock.GetTimestamp();
        await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
        var sql = $$"""
            UPDATE jobs SET lease_expires_at = {{db.LaterSql("{2}")}} {{db.TouchSql}} WHERE {{Held}} RETURNING {{RequestSql}} AS "Value"
            """;
        var request = One(await db.Database.SqlQueryRaw<string>(sql, JobId, Token, lease.TotalSeconds).ToListAsync(cancellationToken));
        lock (_gate)
        {
            (_renewed, _lifetime) = (requested, lease);
        }

        return Enum.Parse<OwnerRequest>(request);
    }

    /// <summary>What the job's owner wants of its worker. Reads only.</summary>
    public async Task<OwnerRequest> ReadRequestAsync(CancellationToken cancellationToken)
    {
        await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
        var rows = await Mine(db).AsNoTracking().Select(j => new { j.Status, j.PauseRequestedAt }).ToListAsync(cancellationToken);
        return One(rows) switch
        {
            { Status: JobStatus.Cancelling } => OwnerRequest.Cancel,
            { PauseRequestedAt: not null } => OwnerRequest.Pause,
            _ => OwnerRequest.None,
        };
    }

    /// <summary>
    /// Stores what the run has reported: progress, metrics and events, all or nothing. The same batch given again, after a failure that
    /// left open whether it was stored, is stored once.
    /// </summary>
    public async Task ReportAsync(ProgressBatch batch, CancellationToken cancellationToken)
    {
        var again = ReferenceEquals(Interlocked.Exchange(ref _reported, batch), batch);
        while (true)
        {
            try
            {
                await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
                if (!await ProgressWrite.RunAsync(db, this, batch, again, cancellationToken))
                {
                    throw new LeaseLostException(JobId, Token);
                }

                return;
            }
            catch (DbUpdateConcurrencyException)
            {
                // The job's owner changed the row at the same moment; nothing of the batch is stored yet.
            }
        }
    }

    /// <summary>Shows the last lines of the training process's log, in the place of those before. Lines are no progress.</summary>
    public async Task StoreLogAsync(string text, CancellationToken cancellationToken)
    {
        await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
        const string sql = $$"""
            INSERT INTO job_logs (job_id, attempt, text) SELECT id, {2}, {3} FROM jobs WHERE {{Held}}
            ON CONFLICT (job_id) DO UPDATE SET attempt = excluded.attempt, text = excluded.text WHERE job_logs.attempt <= excluded.attempt
            """;
        if (await db.Database.ExecuteSqlRawAsync(sql, [JobId, Token, Attempt, text], cancellationToken) == 0)
        {
            throw new LeaseLostException(JobId, Token);
        }
    }

    /// <summary>Makes a checkpoint known that is complete in the artifact store; one that this attempt made known before stays as it is.</summary>
    public async Task AddCheckpointAsync(JobCheckpoint checkpoint, string message, CancellationToken cancellationToken)
    {
        await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
        var known = db.Checkpoints.Where(c => c.JobId == JobId && c.Attempt == checkpoint.Attempt && c.Step == checkpoint.Step);

        // Asked under the row's lock, behind which a first try whose answer was lost has ended.
        var job = await db.ChangeJobAsync(
            j => j.Id == JobId && j.LeaseToken == Token && (j.Status == JobStatus.Running || j.Status == JobStatus.Cancelling) && !known.Any(),
            (mine, now) =>
            {
                db.Checkpoints.Add(checkpoint);
                mine.Record(EventLevel.Info, JobEvent.MessageType, message, null, now);
            },
            cancellationToken);
        if (job is null && !await known.AnyAsync(cancellationToken))
        {
            throw new LeaseLostException(JobId, Token);
        }
    }

    /// <summary>Forgets checkpoints that are neither among the newest nor the best.</summary>
    /// <param name="keep">How many of the newest stay.</param>
    /// <returns>Where the files of the forgotten ones stand.</returns>
    public async Task<IReadOnlyList<string>> PruneCheckpointsAsync(int keep, CancellationToken cancellationToken)
    {
        await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
        var all = await db.Checkpoints.AsNoTracking().Where(c => c.JobId == JobId)
            .OrderByDescending(c => c.Step).ThenByDescending(c => c.Attempt).ToListAsync(cancellationToken);
        var best = all.FirstOrDefault(c => c.Best)?.Id;
        var old = all.Skip(keep).Where(c => c.Id != best).ToList();
        if (old.Count == 0)
        {
            return [];
        }

        var ids = old.ConvertAll(c => c.Id);
        var forgotten = await db.Checkpoints.Where(c => ids.Contains(c.Id) && Mine(db).Any()).ExecuteDeleteAsync(cancellationToken);
        return forgotten > 0 ? old.ConvertAll(c => c.StoragePrefix) : throw new LeaseLostException(JobId, Token);
    }

    /// <summary>Ends the job with its result; the artifacts and the curve become known in the same transaction.</summary>
    public Task SucceedAsync(
        string fineTunedModel, IReadOnlyList<Artifact> artifacts, DataFile? results, string? costJson, CancellationToken cancellationToken) =>
        HandBackAsync(
            (db, job, now) =>
            {
                db.Artifacts.AddRange(artifacts);
                if (results is not null)
                {
                    db.Files.Add(results);
                }

                job.Succeed(fineTunedModel, results?.Id, now);
                job.Measured(costJson);
            },
            cancellationToken);

    /// <summary>Ends the job without a result; what it left behind (its log) becomes known.</summary>
    public Task FailAsync(JobFailure failure, IReadOnlyList<Artifact> artifacts, CancellationToken cancellationToken) =>
        HandBackAsync(
            (db, job, now) =>
            {
                db.Artifacts.AddRange(artifacts);
                job.Fail(failure, now);
            },
            cancellationToken);

    public Task ConfirmCancelledAsync(IReadOnlyList<Artifact> artifacts, CancellationToken cancellationToken) =>
        HandBackAsync(
            (db, job, now) =>
            {
                db.Artifacts.AddRange(artifacts);
                job.ConfirmCancelled(now);
            },
            cancellationToken);

    /// <summary>Sets the job aside as its owner asked; ends it instead when its owner has asked for that meanwhile.</summary>
    /// <param name="warning">A line for the job's story before that; null: none.</param>
    /// <returns>Where the job stands now: a pause that was withdrawn puts it back in the queue.</returns>
    public Task<JobStatus> ConfirmPausedAsync(string? warning, CancellationToken cancellationToken) =>
        StopAsync((job, now) => job.ConfirmPaused(now), warning, cancellationToken);

    /// <summary>Gives the job back to the queue: this worker shuts down. A job that is to end or to pause does that instead.</summary>
    /// <param name="warning">A line for the job's story before that; null: none.</param>
    /// <returns>Where the job stands now.</returns>
    public Task<JobStatus> GiveBackAsync(string reason, string? warning, CancellationToken cancellationToken) =>
        StopAsync((job, now) => job.Requeue(reason, RequeueCause.HandedOver, now, now), warning, cancellationToken);

    /// <summary>Asks for another attempt after a failure of the platform. A job that is to end or to pause does that instead.</summary>
    /// <returns>Where the job stands now.</returns>
    public Task<JobStatus> RetryAsync(
        string reason, TimeSpan delay, IReadOnlyList<Artifact> artifacts, CancellationToken cancellationToken) =>
        StopAsync((job, now) => job.Requeue(reason, RequeueCause.PlatformFailure, now + delay, now), null, cancellationToken, artifacts);

    private Task<JobStatus> StopAsync(
        Action<TrainingJob, DateTimeOffset> stop, string? warning, CancellationToken cancellationToken,
        IReadOnlyList<Artifact>? artifacts = null) => HandBackAsync(
        (db, job, now) =>
        {
            db.Artifacts.AddRange(artifacts ?? []);
            if (warning is not null)
            {
                job.Record(EventLevel.Warn, JobEvent.MessageType, warning, null, now);
            }

            if (job.Status == JobStatus.Cancelling)
            {
                job.ConfirmCancelled(now);
            }
            else
            {
                stop(job, now);
            }
        },
        cancellationToken);

    private T One<T>(List<T> rows) => rows.Count == 1 ? rows[0] : throw new LeaseLostException(JobId, Token);

    private IQueryable<TrainingJob> Mine(AppDbContext db) => db.Jobs.Where(
        j => j.Id == JobId && j.LeaseToken == Token && (j.Status == JobStatus.Running || j.Status == JobStatus.Cancelling));

    /// <summary>The last write of an attempt. After a lost answer, the event that it raised tells whether it was stored.</summary>
    /// <returns>Where it left the job.</returns>
    private async Task<JobStatus> HandBackAsync(Action<AppDbContext, TrainingJob, DateTimeOffset> change, CancellationToken cancellationToken)
    {
        await using var db = await _contexts.CreateDbContextAsync(cancellationToken);
        (Guid Event, JobStatus Status)? sent = null;
        TrainingJob? job;
        try
        {
            job = await db.ChangeJobAsync(
                j => j.Id == JobId && j.LeaseToken == Token && (j.Status == JobStatus.Running || j.Status == JobStatus.Cancelling),
                (mine, now) =>
                {
                    change(db, mine, now);
                    sent = (mine.Events[^1].Id, mine.Status);
                },
                cancellationToken);
        }
        catch (Exception)   // whatever it is, it hides the answer
        {
            _unanswered = sent ?? _unanswered;
            throw;
        }

        if (job is not null)
        {
            return job.Status;
        }

        return _unanswered is { } before && await db.Events.AnyAsync(e => e.Id == before.Event, cancellationToken)
            ? before.Status
            : throw new LeaseLostException(JobId, Token);
    }
}
