using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Health;

/// <summary>Leases that a worker should have renewed.</summary>
public static class ExpiredLeases
{
    public static async Task<int> CountExpiredLeasesAsync(this AppDbContext db, string worker, CancellationToken cancellationToken)
    {
        var now = await db.NowAsync(cancellationToken);
        return await db.Jobs.CountAsync(
            j => (j.Status == JobStatus.Running || j.Status == JobStatus.Cancelling) && j.LeaseOwner == worker && j.LeaseExpiresAt < now,
            cancellationToken);
    }
}
