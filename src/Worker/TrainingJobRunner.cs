using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
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
internal sealed class TrainingJobRunner(
    JobStore jobs, IServiceProvider services, IHostApplicationLifetime lifetime, IOptions<WorkerOptions> options)
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
        finally
        {
            _slots.Release();
        }
    }

    public void Dispose() => _slots.Dispose();
}
