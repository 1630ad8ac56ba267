using Microsoft.EntityFrameworkCore;

namespace TrainingService.Infrastructure.Health;

/// <summary>The database answers, and its tables are those of this version.</summary>
internal sealed class DatabaseLook(IDbContextFactory<AppDbContext> contexts) : IReadinessLook
{
    public async Task<string?> FindFaultAsync(CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var pending = (await db.Database.GetPendingMigrationsAsync(cancellationToken)).Count();
        return pending == 0 ? null : $"{pending} migrations have not been applied; run the command 'migrate'.";
    }
}
