using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Jobs;

/// <summary>Section <c>Reconciler</c>: how what crashes leave behind is repaired.</summary>
public sealed record ReconcilerOptions
{
    public const string Section = "Reconciler";

    /// <summary>Seconds between two passes.</summary>
    [Range(0.1, 3600)]
    public double IntervalSeconds { get; init; } = 2;

    /// <summary>How often a job may lose its worker; the next loss fails it.</summary>
    [Range(0, 1000)]
    public int MaxRecoveries { get; init; } = 5;

    /// <summary>Seconds that a job waits after losing its worker once; doubles with each further loss.</summary>
    [Range(0, 3600)]
    public double BackOffSeconds { get; init; } = 5;

    /// <summary>Seconds after a failure of the database in which no job is taken from its worker: workers that waited it out renew first.</summary>
    [Range(0, 3600)]
    public double OutageGraceSeconds { get; init; } = 20;

    /// <summary>Minutes without any report, or byte moved, after which a running job is said to be stalled.</summary>
    [Range(0.001, 100_000)]
    public double StallWarnMinutes { get; init; } = 15;

    /// <summary>Minutes without any report, or byte moved, after which a running job gets another attempt.</summary>
    [Range(0.001, 100_000)]
    public double StallEndMinutes { get; init; } = 120;
}

/// <summary>
/// Repairs what crashes leave behind: jobs of lost workers go back in the queue, and waiting jobs whose wake-up is lost, or due
/// only now, get one. Any number may run at once: each repair is an ordinary change of a job under its concurrency token.
/// </summary>
internal sealed partial class Reconciler(
    JobStore jobs, IJobQueue queue, IOptions<ReconcilerOptions> options, TimeProvider clock, ILogger<Reconciler> logger)
    : BackgroundService
{
    /// <summary>A worker that is awake goes on until nothing waits, so few bells serve any number of jobs.</summary>
    private const int MostWakeUps = 16;

    private long? _failed;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromSeconds(options.Value.IntervalSeconds), clock);
        do
        {
            try
            {
                await PassAsync(stoppingToken);
            }
            catch (Exception e) when (!stoppingToken.IsCancellationRequested)   // the edge of the loop: whatever fails, the next pass comes
            {
                _failed = clock.GetTimestamp();
                PassFailed(e);
            }
        }
        while (await timer.WaitForNextTickAsync(stoppingToken));
    }

    private async Task PassAsync(CancellationToken cancellationToken)
    {
        var settings = options.Value;
        var backOff = TimeSpan.FromSeconds(settings.BackOffSeconds);
        if (_failed is not { } failed || clock.GetElapsedTime(failed).TotalSeconds >= settings.OutageGraceSeconds)
        {
            var recovered = await jobs.RecoverAsync(expiredOnly: true, settings.MaxRecoveries, backOff, cancellationToken);
            if (recovered > 0)
            {
                Recovered(recovered);
            }

            await jobs.CheckProgressAsync(
                TimeSpan.FromMinutes(settings.StallWarnMinutes), TimeSpan.FromMinutes(settings.StallEndMinutes), settings.MaxRecoveries, backOff,
                cancellationToken);
        }

        var eligible = await jobs.EligibleAsync(MostWakeUps, cancellationToken);
        if (eligible.Count == 0)
        {
            return;
        }

        var waiting = queue.CountWaiting();
        foreach (var id in eligible.Skip((int)Math.Min(waiting, MostWakeUps)))
        {
            queue.Wake(id);
            WokenAgain(id);
        }
    }

    [LoggerMessage(1, LogLevel.Warning, "Took {Count} jobs back from lost workers")]
    private partial void Recovered(int count);

    [LoggerMessage(2, LogLevel.Debug, "Job {JobId} waits without a wake-up; sent one")]
    private partial void WokenAgain(Guid jobId);

    [LoggerMessage(3, LogLevel.Warning, "The jobs could not be looked after; the next pass tries again")]
    private partial void PassFailed(Exception exception);
}
