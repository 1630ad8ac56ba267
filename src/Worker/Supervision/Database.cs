using System.Data.Common;
using Microsoft.Extensions.Logging;

namespace TrainingService.Worker.Supervision;

/// <summary>A database that is away for minutes must not cost a training of days.</summary>
internal static partial class Database
{
    /// <summary>Whether a failure comes from a database that may answer again.</summary>
    public static bool IsAway(Exception failure)
    {
        for (var e = failure; e is not null; e = e.InnerException)
        {
            if (e is DbException or TimeoutException)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Writes, and tries again with growing pauses while the database is away, for ten minutes at most.</summary>
    public static async Task PersistAsync(Func<Task> write, TimeProvider clock, ILogger logger)
    {
        var start = clock.GetTimestamp();
        for (var pause = TimeSpan.FromMilliseconds(200); ; pause = TimeSpan.FromSeconds(Math.Min(pause.TotalSeconds * 2, 15)))
        {
            try
            {
                await write();
                return;
            }
            catch (Exception e) when (IsAway(e) && clock.GetElapsedTime(start) < TimeSpan.FromMinutes(10))
            {
                WriteFailed(logger, pause.TotalSeconds, e);
                await Task.Delay(pause, clock);
            }
        }
    }

    [LoggerMessage(20, LogLevel.Warning, "The database did not take a write; trying again in {Seconds} s")]
    private static partial void WriteFailed(ILogger logger, double seconds, Exception exception);
}
