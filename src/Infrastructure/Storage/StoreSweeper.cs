using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Removes from time to time what crashes, outages and expiry left in the artifact store. One process does so at a time.</summary>
internal sealed partial class StoreSweeper(
    StoreSweep sweep, IDbContextFactory<AppDbContext> contexts, IOptions<StoreSweepOptions> options, TimeProvider clock, ILogger<StoreSweeper> logger)
    : BackgroundService
{
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMinutes(options.Value.IntervalMinutes), clock);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                await PassAsync(stoppingToken);
            }
            catch (Exception e) when (e is DbException or ArtifactStoreException or TimeoutException or InvalidOperationException { InnerException: DbException })
            {
                PutOff(e);
            }
        }
    }

    private async Task PassAsync(CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        await using var held = await db.TryLockStoreAsync(cancellationToken);
        if (held is null)
        {
            return;
        }

        var swept = await sweep.PassAsync(TimeSpan.FromHours(options.Value.GraceHours), cancellationToken);
        if (swept != new SweptStore())
        {
            Swept(swept.Objects, swept.Bytes, swept.Unfinished, swept.ExpiredFiles, swept.ExpiredUploads);
        }
    }

    [LoggerMessage(1, LogLevel.Information,
        "Removed {Objects} objects with {Bytes} bytes that nothing refers to, {Unfinished} unfinished writes, {Files} expired files and {Uploads} expired uploads")]
    private partial void Swept(int objects, long bytes, int unfinished, int files, int uploads);

    [LoggerMessage(2, LogLevel.Warning, "The clean-up of the artifact store broke off; the next pass goes on")]
    private partial void PutOff(Exception exception);
}
