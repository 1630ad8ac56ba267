using System.Diagnostics;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>Waiting for what other processes do.</summary>
internal static class Eventually
{
    /// <summary>Ends a test that hangs; says nothing about how fast the service is, since machines are shared.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(10);

    /// <summary>Asks again and again until the answer is yes.</summary>
    /// <param name="what">Completes "… did not happen".</param>
    /// <returns>How long it took.</returns>
    public static async Task<TimeSpan> Async(Func<Task<bool>> holds, Func<string> what)
    {
        var time = Stopwatch.StartNew();
        while (!await holds())
        {
            if (time.Elapsed > Patience)
            {
                throw new TimeoutException($"Within {Patience.TotalMinutes} minutes this did not happen: {what()}");
            }

            await Task.Delay(20);
        }

        return time.Elapsed;
    }

    public static Task<TimeSpan> Async(Func<bool> holds, Func<string> what) =>
        Async(() => Task.FromResult(holds()), what);
}
