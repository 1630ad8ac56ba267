using Microsoft.EntityFrameworkCore;
using Npgsql;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Data;

/// <summary>The rows on Postgres.</summary>
public sealed class PostgresDbContext(DbContextOptions<PostgresDbContext> options) : AppDbContext(options)
{
    internal override string JsonColumnType => "jsonb";

    internal override string NowSql => "clock_timestamp()";

    internal override string NowMicrosecondsSql => "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

    internal override string SkipLockedSql => "FOR UPDATE OF j SKIP LOCKED";

    internal override string TouchSql => "";

    internal override string LaterSql(string seconds) => $"clock_timestamp() + make_interval(secs => {seconds})";

    internal override string JsonSql(string parameter) => $"CAST({parameter} AS jsonb)";

    internal override string MergedJsonSql(string first, string second) => $"{first} || {second}";

    internal override object TimeParameter(DateTimeOffset time) => time.ToUniversalTime();

    internal override string LockStoreSql => "SELECT pg_try_advisory_lock(7021964403318) AS \"Value\"";

    internal override string LockJobSql => "SELECT 1 FROM jobs WHERE id = {0} FOR UPDATE";

    internal override bool IsLostRace(DbUpdateException failure)
    {
        var cause = failure.InnerException as PostgresException;
        return cause?.SqlState == PostgresErrorCodes.DeadlockDetected
            || (cause?.SqlState == PostgresErrorCodes.UniqueViolation
                && cause.ConstraintName is "pk_job_events" or "pk_job_transitions");
    }

    protected override void OnModelCreating(ModelBuilder modelBuilder)
    {
        base.OnModelCreating(modelBuilder);
        modelBuilder.Entity<TrainingJob>().Property<uint>("Version").HasColumnName("xmin").IsRowVersion();
    }
}
