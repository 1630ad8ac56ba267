using Hangfire.PostgreSql;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Npgsql;

namespace TrainingService.Infrastructure;

/// <summary>The one step that creates and upgrades tables: <c>migrate</c> in production, the start of the host on the embedded profile.</summary>
public sealed class DatabaseMigrator(IDbContextFactory<AppDbContext> contexts, IOptions<ServiceOptions> options)
{
    public async Task MigrateAsync(CancellationToken cancellationToken)
    {
        if (options.Value.Profile == ServiceProfile.Embedded)
        {
            Directory.CreateDirectory(options.Value.DataPath);
        }

        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        await db.Database.MigrateAsync(cancellationToken);
        if (options.Value.Profile == ServiceProfile.Production)
        {
            await using var connection = new NpgsqlConnection(db.Database.GetConnectionString());
            await connection.OpenAsync(cancellationToken);
            PostgreSqlObjectsInstaller.Install(connection);
        }
        else
        {
            // Readers do not wait for the writer. The mode is kept in the file.
            await db.Database.ExecuteSqlAsync($"PRAGMA journal_mode = WAL", cancellationToken);
        }
    }
}
