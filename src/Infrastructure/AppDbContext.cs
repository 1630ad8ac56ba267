using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Models;
using TrainingService.Domain.Projects;
using TrainingService.Infrastructure.Data;

namespace TrainingService.Infrastructure;

/// <summary>The rows of the service. What differs between Postgres and SQLite is in the two derived contexts and nowhere else.</summary>
public abstract class AppDbContext(DbContextOptions options) : DbContext(options)
{
    public DbSet<Project> Projects => Set<Project>();

    public DbSet<DataFile> Files => Set<DataFile>();

    public DbSet<Upload> Uploads => Set<Upload>();

    public DbSet<UploadPart> UploadParts => Set<UploadPart>();

    public DbSet<BaseModel> Models => Set<BaseModel>();

    public DbSet<TrainingJob> Jobs => Set<TrainingJob>();

    public DbSet<JobEvent> Events => Set<JobEvent>();

    public DbSet<JobMetric> Metrics => Set<JobMetric>();

    public DbSet<JobCheckpoint> Checkpoints => Set<JobCheckpoint>();

    public DbSet<JobLog> Logs => Set<JobLog>();

    public DbSet<Artifact> Artifacts => Set<Artifact>();

    public DbSet<IdempotencyRecord> IdempotencyRecords => Set<IdempotencyRecord>();

    /// <summary>The column type of JSON text.</summary>
    internal abstract string JsonColumnType { get; }

    /// <summary>SQL for the database's time, in the form in which times are stored.</summary>
    internal abstract string NowSql { get; }

    /// <summary>SQL for the database's time as microseconds since 1970.</summary>
    internal abstract string NowMicrosecondsSql { get; }

    /// <summary>SQL that keeps concurrent claims apart; empty where writers take turns anyway.</summary>
    internal abstract string SkipLockedSql { get; }

    /// <summary>SQL that locks one job's row until the transaction ends; null where a transaction has every row to itself.</summary>
    internal abstract string? LockJobSql { get; }

    /// <summary>Further assignments of an UPDATE of <c>jobs</c> that keep the concurrency token honest; empty where the database does so.</summary>
    internal abstract string TouchSql { get; }

    /// <summary>
    /// SQL that answers whether this connection alone may now clean the artifact store, until it is closed; null where one process
    /// has the database to itself.
    /// </summary>
    internal abstract string? LockStoreSql { get; }

    /// <summary>SQL for the database's time a number of seconds from now.</summary>
    internal abstract string LaterSql(string seconds);

    /// <summary>SQL for a text parameter as a JSON value.</summary>
    internal abstract string JsonSql(string parameter);

    /// <summary>SQL for one JSON object with the members of two; the second one wins.</summary>
    internal abstract string MergedJsonSql(string first, string second);

    /// <summary>A time as a parameter of handwritten SQL.</summary>
    internal abstract object TimeParameter(DateTimeOffset time);

    /// <summary>Takes the right to clean the artifact store; null when another process has it. It ends with what is returned.</summary>
    public async Task<IAsyncDisposable?> TryLockStoreAsync(CancellationToken cancellationToken)
    {
        if (LockStoreSql is null)
        {
            return this;
        }

        // The lock belongs to the connection, so it must stay open; a lost connection gives it back.
        await Database.OpenConnectionAsync(cancellationToken);
        var rows = await Database.SqlQueryRaw<bool>(LockStoreSql).ToListAsync(cancellationToken);
        return rows[0] ? this : null;
    }

    /// <summary>The database's time: the only clock that leases are measured by.</summary>
    internal async Task<DateTimeOffset> NowAsync(CancellationToken cancellationToken)
    {
        var sql = $"SELECT {NowMicrosecondsSql} AS \"Value\"";
        var rows = await Database.SqlQueryRaw<long>(sql).ToListAsync(cancellationToken);
        return UnixMicroseconds.ToTime(rows[0]);
    }

    /// <summary>Whether a save failed because another writer used the next number of a job's events or history, or was about to.</summary>
    internal abstract bool IsLostRace(DbUpdateException failure);

    /// <inheritdoc/>
    /// <exception cref="DbUpdateConcurrencyException">
    /// Another writer was faster. The new events of a job are written before its row, so a race may show first as a number that is
    /// taken; that is the same answer.
    /// </exception>
    public override async Task<int> SaveChangesAsync(bool acceptAllChangesOnSuccess, CancellationToken cancellationToken = default)
    {
        try
        {
            return await base.SaveChangesAsync(acceptAllChangesOnSuccess, cancellationToken);
        }
        catch (Exception e) when (e is not DbUpdateConcurrencyException
            && (e as DbUpdateException ?? e.InnerException as DbUpdateException) is { } failure && IsLostRace(failure))
        {
            // Npgsql wraps a failure that may pass, such as a deadlock, once more.
            throw new DbUpdateConcurrencyException("Another writer has changed the job.", e);
        }
    }

    protected override void OnModelCreating(ModelBuilder modelBuilder)
    {
        Mapping.Apply(modelBuilder, JsonColumnType);
        SnakeCase.Apply(modelBuilder);
    }

    protected override void ConfigureConventions(ModelConfigurationBuilder configurationBuilder)
    {
        configurationBuilder.Properties<JobStatus>().HaveConversion<SnakeCaseEnum<JobStatus>>();
        configurationBuilder.Properties<UploadStatus>().HaveConversion<SnakeCaseEnum<UploadStatus>>();
        configurationBuilder.Properties<EventLevel>().HaveConversion<SnakeCaseEnum<EventLevel>>();
        configurationBuilder.Properties<ModelSource>().HaveConversion<SnakeCaseEnum<ModelSource>>();
    }
}
