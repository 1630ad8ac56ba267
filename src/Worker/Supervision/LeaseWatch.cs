using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Logging;
using TrainingService.Infrastructure.Data;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.Worker.Supervision;

/// <summary>Keeps an attempt's lease, stores what its run reports, and hears what its owner wants.</summary>
internal sealed partial class LeaseWatch(
    JobLease lease, ReportBuffer reports, StopRequest stop, WorkerOptions options, TimeProvider clock, ILogger logger)
{
    private static readonly TimeSpan LogEvery = TimeSpan.FromSeconds(2);

    private ProgressBatch? _unsent;
    private string? _unsentLog;

    /// <summary>Runs until <paramref name="cancellationToken"/> fires, then stores what is left.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        var lifetime = TimeSpan.FromSeconds(options.LeaseSeconds);
        var renewed = clock.GetTimestamp();
        var looked = clock.GetTimestamp();
        var started = clock.GetTimestamp();
        var logged = clock.GetTimestamp();
        try
        {
            using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(options.FlushMilliseconds), clock);
            while (await NextAsync(timer, cancellationToken))
            {
                if (RunLimit.Of(lease, options) is { } limit && lease.RunSeconds + clock.GetElapsedTime(started).TotalSeconds > limit.Seconds)
                {
                    stop.Set(StopReason.Deadline);
                }

                try
                {
                    await FlushAsync();
                    if (clock.GetElapsedTime(logged) > LogEvery)
                    {
                        logged = clock.GetTimestamp();
                        await StoreLogAsync();
                    }

                    if (clock.GetElapsedTime(renewed) > lifetime / 4)
                    {
                        var request = await lease.RenewAsync(lifetime, CancellationToken.None);
                        renewed = looked = clock.GetTimestamp();
                        StopIf(request);
                    }
                    else if (clock.GetElapsedTime(looked).TotalSeconds > options.WatchSeconds)
                    {
                        looked = clock.GetTimestamp();
                        StopIf(await lease.ReadRequestAsync(CancellationToken.None));
                    }
                }
                catch (Exception e) when (DatabaseFailure.MayPass(e))
                {
                    // The run goes on. If another worker takes the job meanwhile, the next write will say so.
                    Away(lease.JobId, e);
                }
            }

            await Patience.PersistAsync(FlushAsync, clock, logger, CancellationToken.None);
            await Patience.PersistAsync(StoreLogAsync, clock, logger, CancellationToken.None);
        }
        catch (LeaseLostException)
        {
            stop.Set(StopReason.LeaseLost);
        }
    }

    private static async Task<bool> NextAsync(PeriodicTimer timer, CancellationToken cancellationToken)
    {
        try
        {
            return await timer.WaitForNextTickAsync(cancellationToken);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            return false;
        }
    }

    private void StopIf(OwnerRequest request)
    {
        switch (request)
        {
            case OwnerRequest.None:
                break;
            case OwnerRequest.Pause:
                stop.Set(StopReason.Paused);
                break;
            case OwnerRequest.Cancel:
                stop.Set(StopReason.Cancelled);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(request), request, "Not a request.");
        }
    }

    /// <summary>A batch that did not get through is sent again before anything newer.</summary>
    private async Task FlushAsync()
    {
        while ((_unsent ??= reports.Take()) is { } batch)
        {
            try
            {
                await lease.ReportAsync(batch, CancellationToken.None);
            }
            catch (DbUpdateException e) when (!DatabaseFailure.MayPass(e))
            {
                // No later try would be taken either, and nothing behind it may wait for it.
                Refused(lease.JobId, e);
            }

            _unsent = null;
            reports.MarkStored();
        }
    }

    private async Task StoreLogAsync()
    {
        if ((_unsentLog = reports.Log?.TakeRecent() ?? _unsentLog) is { } text)
        {
            await lease.StoreLogAsync(text, CancellationToken.None);
            _unsentLog = null;
        }
    }

    [LoggerMessage(41, LogLevel.Error, "Job {JobId}: the database refused a batch of reports for good; it is left out")]
    private partial void Refused(Guid jobId, Exception exception);

    [LoggerMessage(40, LogLevel.Warning, "Job {JobId}: the database does not answer; the training goes on")]
    private partial void Away(Guid jobId, Exception exception);
}
