using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.Infrastructure;

/// <summary>
/// Makes the embedded profile ready before anything else starts: takes the data folder for this process alone, applies the
/// migrations, and puts jobs that an earlier process left running back in the queue.
/// </summary>
internal sealed class EmbeddedStart(DatabaseMigrator migrator, JobStore jobs, IOptions<ServiceOptions> options)
    : IHostedService, IDisposable
{
    private FileStream? _lock;

    public async Task StartAsync(CancellationToken cancellationToken)
    {
        Directory.CreateDirectory(options.Value.DataPath);
        try
        {
            _lock = new FileStream(
                Path.Combine(options.Value.DataPath, "service.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException e)
        {
            throw new InvalidOperationException(
                $"Another process serves the data folder '{options.Value.DataPath}': stop it, or set DataFolder to another folder.", e);
        }

        await migrator.MigrateAsync(cancellationToken);

        // Nobody else serves this folder, so a job that runs has lost its worker, whatever its lease says.
        await jobs.RecoverAsync(expiredOnly: false, maxRecoveries: int.MaxValue, backOff: TimeSpan.Zero, cancellationToken);
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public void Dispose() => _lock?.Dispose();
}
