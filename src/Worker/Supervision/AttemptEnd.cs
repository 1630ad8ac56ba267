using System.Text.Json;
using TrainingService.Domain.Jobs;
using TrainingService.Training;

namespace TrainingService.Worker.Supervision;

/// <summary>What a training process's end means for its job.</summary>
internal static class AttemptEnd
{
    private const string OutOfMemory =
        "The training process was killed by the system, most likely because memory ran out: lower schedule.batch_size (and raise "
        + "schedule.gradient_accumulation_steps by as much) or data.max_length.";

    /// <summary>The failure that an exit code and the last reports tell of; null: the run is complete.</summary>
    /// <param name="exitCode">128 + the signal when a signal ended the process.</param>
    public static JobFailure? FailureOf(int exitCode, DoneReport? done, FailedReport? failed, string? logTail)
    {
        if (failed is not null)
        {
            return new JobFailure(CodeOf(failed.Code), failed.Message, failed.Param, logTail);
        }

        return exitCode switch
        {
            0 when done is not null => null,
            TrainingProcess.KilledExitCode => new JobFailure(FailureCodes.OutOfMemory, OutOfMemory, "schedule.batch_size", logTail),
            > 128 => new JobFailure(
                FailureCodes.Internal, $"The training process crashed (signal {exitCode - 128}); the log has the details.", null, logTail),
            _ => new JobFailure(
                FailureCodes.Internal, $"The training process ended with code {exitCode} and no result; the log has the details.", null, logTail),
        };
    }

    public static string CodeOf(FailureCode code) => JsonNamingPolicy.SnakeCaseLower.ConvertName(code.ToString());
}
