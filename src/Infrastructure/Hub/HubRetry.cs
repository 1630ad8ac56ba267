namespace TrainingService.Infrastructure.Hub;

/// <summary>How long to wait before the next try.</summary>
internal static class HubRetry
{
    private const double LongestSeconds = 60;

    /// <summary>Tries again while the hub is unreachable.</summary>
    public static async Task<T> RunAsync<T>(
        int attempts, HubOptions options, TimeProvider clock, Func<Task<T>> ask, CancellationToken cancellationToken)
    {
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                return await ask();
            }
            catch (HubException e) when (e.Fault == HubFault.Unreachable && attempt < attempts)
            {
                await Task.Delay(Wait(options, attempt, e), clock, cancellationToken);
            }
        }
    }

    public static TimeSpan Wait(HubOptions options, int attempt, HubException e)
    {
        var own = TimeSpan.FromSeconds(Math.Min(options.RetrySeconds * Math.Pow(2, attempt - 1), LongestSeconds));
        return e.RetryAfter is { } asked && asked > own ? asked : own;
    }
}
