using TrainingService.Training;

namespace TrainingService.Worker.Verbs;

/// <summary>Tells exceptions apart for the person who has to act on them.</summary>
internal static class Failures
{
    /// <summary>What a run's end is called in its <c>failed</c> report.</summary>
    public static FailedReport Describe(Exception error) => error switch
    {
        TrainingException expected => new(expected.Code, expected.Message, expected.Param),
        _ when RunFailures.IsOutOfMemory(error) => new(
            FailureCode.OutOfMemory,
            "Memory was not enough: lower schedule.batch_size (and raise schedule.gradient_accumulation_steps by as much) or data.max_length.",
            "schedule.batch_size"),
        IOException or UnauthorizedAccessException => new(FailureCode.Storage, $"A file could not be read or written: {error.Message}", null),
        _ => new(FailureCode.Internal, "The run failed by a defect of ours; the log has the details.", null),
    };

    /// <summary>Runs a verb that reports on standard error, and turns its exceptions into one line.</summary>
    public static int Guard(Action verb)
    {
        try
        {
            verb();
            return ExitCodes.Done;
        }
        catch (Exception error)   // the edge of the process: everything is answered here, and nothing is hidden
        {
            var failure = Describe(error);
            Console.Error.WriteLine(failure.Param is null ? $"error: {failure.Message}" : $"error: {failure.Param}: {failure.Message}");
            if (failure.Code == FailureCode.Internal)
            {
                Console.Error.WriteLine(error);
            }

            return ExitCodes.Failed;
        }
    }
}
