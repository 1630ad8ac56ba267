using Microsoft.AspNetCore.Diagnostics.HealthChecks;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using TrainingService.Domain.Artifacts;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Health;

/// <summary><c>/health/live</c>: the process answers. <c>/health/ready</c>: what it needs is there.</summary>
internal static class HealthEndpoints
{
    public static void AddHealth(this IServiceCollection services) => services.AddHealthChecks()
        .AddCheck<DatabaseCheck>("database").AddCheck<StoreCheck>("store");

    public static void MapHealth(this IEndpointRouteBuilder routes)
    {
        routes.MapHealthChecks("/health/live", new HealthCheckOptions { Predicate = _ => false, ResponseWriter = WriteAsync });
        routes.MapHealthChecks("/health/ready", new HealthCheckOptions { ResponseWriter = WriteAsync });
    }

    /// <summary>What is wrong is named, not shown: the answer is open to everybody, and an exception's text may carry an address.</summary>
    private static Task WriteAsync(HttpContext context, HealthReport report) => context.Response.WriteAsJsonAsync(
        new HealthResponse(
            report.Status.ToString().ToLowerInvariant(),
            report.Entries.ToDictionary(
                entry => entry.Key, entry => new HealthPart(entry.Value.Status.ToString().ToLowerInvariant(), entry.Value.Description))),
        context.RequestAborted);
}

internal sealed record HealthResponse(string Status, IReadOnlyDictionary<string, HealthPart> Checks);

internal sealed record HealthPart(string Status, string? Description);

/// <summary>The database answers and its tables are those of this version.</summary>
internal sealed class DatabaseCheck(AppDbContext db) : IHealthCheck
{
    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        if (!await db.Database.CanConnectAsync(cancellationToken))
        {
            return HealthCheckResult.Unhealthy("The database does not answer.");
        }

        var pending = (await db.Database.GetPendingMigrationsAsync(cancellationToken)).Count();
        return pending == 0
            ? HealthCheckResult.Healthy()
            : HealthCheckResult.Unhealthy($"{pending} migrations have not been applied; run the command 'migrate'.");
    }
}

/// <summary>The artifact store takes an object and gives it back.</summary>
internal sealed class StoreCheck(IArtifactStore store) : IHealthCheck
{
    private static readonly byte[] Probe = [1];
    private static readonly string Key = $"health/{Environment.MachineName.ToLowerInvariant()}-{Environment.ProcessId}";

    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        using var content = new MemoryStream(Probe);
        await store.PutAsync(Key, content, "application/octet-stream", cancellationToken);
        await using var stored = await store.OpenReadAsync(Key, null, cancellationToken);
        return stored is not null ? HealthCheckResult.Healthy() : HealthCheckResult.Unhealthy("The artifact store lost what it was given.");
    }
}
