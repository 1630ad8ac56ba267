using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace TrainingService.Infrastructure.Health;

/// <summary>One thing that readiness needs.</summary>
public interface IReadinessLook
{
    /// <returns>What is wrong, in words that may be shown to everybody; null when nothing is.</returns>
    Task<string?> FindFaultAsync(CancellationToken cancellationToken);
}

/// <summary>
/// Bounds a look: one at a time, however many probes ask; a good answer is kept for a while; and nobody waits longer than the time-out,
/// even where the look itself hangs, as calls to a server do that swallows packets.
/// </summary>
internal sealed partial class BoundedCheck<T>(T look, IOptions<HealthOptions> options, TimeProvider clock, ILogger<BoundedCheck<T>> logger)
    : IHealthCheck
    where T : IReadinessLook
{
    private readonly Lock _gate = new();
    private Task<HealthCheckResult>? _latest;
    private long _started;

    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        var timeout = TimeSpan.FromSeconds(options.Value.TimeoutSeconds);
        try
        {
            return await Latest(timeout).WaitAsync(timeout, clock, cancellationToken);
        }
        catch (TimeoutException)
        {
            return HealthCheckResult.Unhealthy(Late);
        }
    }

    private string Late => $"No answer within {options.Value.TimeoutSeconds} s.";

    private Task<HealthCheckResult> Latest(TimeSpan timeout)
    {
        lock (_gate)
        {
            var isKept = _latest is { IsCompletedSuccessfully: true } done
                ? done.GetAwaiter().GetResult().Status == HealthStatus.Healthy
                    && clock.GetElapsedTime(_started).TotalSeconds < options.Value.KeepSeconds
                : _latest is { IsCompleted: false };
            if (!isKept)
            {
                _started = clock.GetTimestamp();
                _latest = Task.Run(() => LookAsync(timeout), CancellationToken.None);
            }

            return _latest!;
        }
    }

    private async Task<HealthCheckResult> LookAsync(TimeSpan timeout)
    {
        using var patience = new CancellationTokenSource(timeout, clock);
        try
        {
            return await look.FindFaultAsync(patience.Token) is { } fault
                ? HealthCheckResult.Unhealthy(fault)
                : HealthCheckResult.Healthy();
        }
        catch (OperationCanceledException) when (patience.IsCancellationRequested)
        {
            return HealthCheckResult.Unhealthy(Late);
        }
        catch (Exception e)   // the edge of a probe: every failure is an answer, and its text may carry an address or a name
        {
            Failed(typeof(T).Name, e);
            return HealthCheckResult.Unhealthy($"It does not answer as it should ({e.GetType().Name}); the log says more.");
        }
    }

    [LoggerMessage(60, LogLevel.Warning, "Not ready: {Name} does not answer as it should")]
    private partial void Failed(string name, Exception exception);
}
