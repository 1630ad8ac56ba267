using Hangfire;
using Microsoft.EntityFrameworkCore;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Health;

namespace TrainingService.Worker;

/// <summary>The worker can be woken, and keeps the leases that it holds.</summary>
internal sealed class WorkerLook(JobStorage courier, IDbContextFactory<AppDbContext> contexts, TimeProvider clock) : IReadinessLook
{
    /// <summary>Three heartbeats of the Hangfire server.</summary>
    private static readonly TimeSpan Silence = WorkerServices.HeartbeatInterval * 3;

    public async Task<string?> FindFaultAsync(CancellationToken cancellationToken)
    {
        var since = clock.GetUtcNow().UtcDateTime - Silence;
        if (!courier.GetMonitoringApi().Servers().Any(
            server => server.Name.StartsWith(WorkerName.Value + ":", StringComparison.OrdinalIgnoreCase) && server.Heartbeat > since))
        {
            return "The worker is not announced to the courier, or has been silent: nobody wakes it.";
        }

        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var lost = await db.CountExpiredLeasesAsync(WorkerName.Value, cancellationToken);
        return lost == 0 ? null : $"{lost} leases of this worker have run out: it does not renew them.";
    }
}
