using Microsoft.Extensions.Logging;
using TrainingService.Domain.Artifacts;
using TrainingService.Infrastructure.Data;

namespace TrainingService.Worker.Supervision;

/// <summary>A database or a store that is away for minutes must not cost a training of days.</summary>
internal static partial class Patience
{
    /// <summary>Whether a failure of the database or of the artifact store may be over later.</summary>
    public static bool MayPass(Exception failure) =>
        failure is ArtifactStoreException || DatabaseFailure.MayPass(failure);

    /// <summary>Writes to the database, and tries again with growing pauses while it is away, for ten minutes at most.</summary>
    public static Task PersistAsync(Func<Task> write, TimeProvider clock, ILogger logger, CancellationToken cancellationToken) =>
        KeepTryingAsync(write, DatabaseFailure.MayPass, TimeSpan.FromMinutes(10), clock, logger, cancellationToken);

    /// <summary>Does something, and tries again with growing pauses while what stands in its way may pass.</summary>
    /// <param name="longest">How long to go on; then the failure comes through.</param>
    public static async Task KeepTryingAsync(
        Func<Task> work, Func<Exception, bool> mayPass, TimeSpan longest, TimeProvider clock, ILogger logger, CancellationToken cancellationToken)
    {
        var start = clock.GetTimestamp();
        for (var pause = TimeSpan.FromMilliseconds(200); ; pause = TimeSpan.FromSeconds(Math.Min(pause.TotalSeconds * 2, 15)))
        {
            try
            {
                await work();
                return;
            }
            catch (Exception e) when (mayPass(e) && clock.GetElapsedTime(start) < longest && !cancellationToken.IsCancellationRequested)
            {
                Failed(logger, pause.TotalSeconds, e);
            }

            await Task.Delay(pause, clock, cancellationToken);
        }
    }

    [LoggerMessage(20, LogLevel.Warning, "A write or read did not get through; trying again in {Seconds} s")]
    private static partial void Failed(ILogger logger, double seconds, Exception exception);
}
