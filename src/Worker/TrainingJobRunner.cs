using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Infrastructure.Queue;
using TrainingService.Worker.Supervision;

namespace TrainingService.Worker;

/// <summary>What a wake-up does: claims and runs jobs until none waits.</summary>
/// <remarks>
/// Hangfire's token is no order to stop: it also fires when Hangfire restarts its server after losing sight of the database, and a
/// run of days must outlive that. Only the host's own stopping ends a run.
/// </remarks>
internal sealed partial class TrainingJobRunner(
    JobStore jobs, IServiceProvider services, IHostApplicationLifetime lifetime, IOptions<WorkerOptions> options,
    ILogger<TrainingJobRunner> logger)
    : ITrainingJobRunner, IDisposable
{
    private readonly SemaphoreSlim _slots = new(options.Value.Concurrency);

    public async Task RunAsync(Guid jobId, CancellationToken cancellationToken)
    {
        // All slots are taken: whoever holds one looks for the next job before leaving.
        if (!await _slots.WaitAsync(0, CancellationToken.None))
        {
            return;
        }

        try
        {
            var stopping = lifetime.ApplicationStopping;
            while (!stopping.IsCancellationRequested
                && await jobs.ClaimAsync(WorkerName.Value, TimeSpan.FromSeconds(options.Value.LeaseSeconds), stopping) is { } lease)
            {
                await services.GetRequiredService<JobAttempt>().RunAsync(lease, stopping);
            }
        }
        catch (Exception e) when (!lifetime.ApplicationStopping.IsCancellationRequested)
        {
            // The edge of a wake-up, such as a database that is away: the jobs still wait in their table, and the reconciler wakes again.
            WakeUpFailed(e);
        }
        catch (OperationCanceledException) when (lifetime.ApplicationStopping.IsCancellationRequested)
        {
            // Told to stop while it looked for a job; it holds none.
        }
        finally
        {
            _slots.Release();
        }
    }

    public void Dispose() => _slots.Dispose();

    [LoggerMessage(70, LogLevel.Warning, "The wake-up ended early; the next one looks for jobs again")]
    private partial void WakeUpFailed(Exception exception);
}
