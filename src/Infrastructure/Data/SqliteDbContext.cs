using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Data;

/// <summary>The rows in a SQLite file. Times are whole microseconds since 1970, so that they sort and compare.</summary>
public sealed class SqliteDbContext(DbContextOptions<SqliteDbContext> options) : AppDbContext(options)
{
    /// <summary>SQLITE_CONSTRAINT_PRIMARYKEY of the SQLite documentation.</summary>
    private const int PrimaryKeyTaken = 1555;

    internal override string JsonColumnType => "TEXT";

    internal override string NowSql => "CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER) * 1000";

    internal override string NowMicrosecondsSql => NowSql;

    internal override string SkipLockedSql => "";

    internal override string TouchSql => ", version = version + 1";

    internal override string LaterSql(string seconds) => $"{NowSql} + CAST({seconds} * 1000000 AS INTEGER)";

    internal override string JsonSql(string parameter) => parameter;

    internal override string MergedJsonSql(string first, string second) => $"json_patch({first}, {second})";

    internal override object TimeParameter(DateTimeOffset time) => UnixMicroseconds.ToNumber(time);

    internal override string? LockStoreSql => null;

    internal override string? LockJobSql => null;

    internal override bool IsLostRace(DbUpdateException failure) =>
        failure.InnerException is SqliteException { SqliteExtendedErrorCode: PrimaryKeyTaken } e
        && (e.Message.Contains("job_events.", StringComparison.Ordinal) || e.Message.Contains("job_transitions.", StringComparison.Ordinal));

    public override Task<int> SaveChangesAsync(bool acceptAllChangesOnSuccess, CancellationToken cancellationToken = default)
    {
        RaiseVersions();
        return base.SaveChangesAsync(acceptAllChangesOnSuccess, cancellationToken);
    }

    public override int SaveChanges(bool acceptAllChangesOnSuccess)
    {
        RaiseVersions();
        return base.SaveChanges(acceptAllChangesOnSuccess);
    }

    protected override void ConfigureConventions(ModelConfigurationBuilder configurationBuilder)
    {
        base.ConfigureConventions(configurationBuilder);
        configurationBuilder.Properties<DateTimeOffset>().HaveConversion<UnixMicroseconds>();
    }

    protected override void OnModelCreating(ModelBuilder modelBuilder)
    {
        base.OnModelCreating(modelBuilder);
        modelBuilder.Entity<TrainingJob>().Property<long>("Version").HasColumnName("version").IsConcurrencyToken();
    }

    /// <summary>SQLite has no row version of its own: each save of a job raises a counter that the next save must find unchanged.</summary>
    private void RaiseVersions()
    {
        foreach (var job in ChangeTracker.Entries<TrainingJob>())
        {
            if (job.State == EntityState.Modified)
            {
                var version = job.Property<long>("Version");
                version.CurrentValue = version.OriginalValue + 1;
            }
        }
    }
}
