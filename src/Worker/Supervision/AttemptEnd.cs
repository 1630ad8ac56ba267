using System.Text.Json;
using TrainingService.Domain.Jobs;
using TrainingService.Training;

namespace TrainingService.Worker.Supervision;

/// <summary>What a training process's end means for its job.</summary>
internal static class AttemptEnd
{
    private const string Shrink =
        "lower schedule.batch_size (and raise schedule.gradient_accumulation_steps by as much) or data.max_length.";

    /// <summary>The failure that an exit code and the last reports tell of; null: the run is complete.</summary>
    /// <param name="exitCode">128 + the signal when a signal ended the process.</param>
    /// <param name="kernelKilled">Whether the kernel killed a process for want of memory meanwhile.</param>
    /// <param name="work">The attempt's work folder.</param>
    public static JobFailure? FailureOf(
        int exitCode, bool kernelKilled, DoneReport? done, FailedReport? failed, string? logTail, string work)
    {
        if (failed is not null)
        {
            var message = failed.Code == FailureCode.Storage && DiskFull.Says(failed.Message) ? DiskFull.Sentence(work) : failed.Message;
            return new JobFailure(CodeOf(failed.Code), message, failed.Param, logTail);
        }

        return exitCode switch
        {
            0 when done is not null => null,
            TrainingProcess.KilledExitCode when kernelKilled => OutOfMemory($"The system killed the training process because memory ran out: {Shrink}", logTail),
            TrainingProcess.KilledExitCode => new JobFailure(
                FailureCodes.Internal, "The training process was killed from outside; the job goes on from its last checkpoint.", null, logTail),
            _ when logTail is not null && RunFailures.SpeaksOfMemory(logTail) => OutOfMemory($"Memory was not enough: {Shrink}", logTail),
            _ when logTail is not null && DiskFull.Says(logTail) => new JobFailure(FailureCodes.Storage, DiskFull.Sentence(work), null, logTail),
            > 128 => new JobFailure(
                FailureCodes.Internal, $"The training process crashed (signal {exitCode - 128}); the log has the details.", null, logTail),
            _ => new JobFailure(
                FailureCodes.Internal, $"The training process ended with code {exitCode} and no result; the log has the details.", null, logTail),
        };
    }

    private static JobFailure OutOfMemory(string message, string? logTail) =>
        new(FailureCodes.OutOfMemory, message, "schedule.batch_size", logTail);

    public static string CodeOf(FailureCode code) => JsonNamingPolicy.SnakeCaseLower.ConvertName(code.ToString());
}
