namespace TrainingService.Domain.Jobs;

/// <summary>Who must act on a failure.</summary>
public enum Responsibility
{
    User,
    Platform,
}

/// <summary>Why a job failed.</summary>
/// <param name="Code">One of <see cref="FailureCodes"/>.</param>
/// <param name="Message">One sentence that says what to change.</param>
/// <param name="Param">JSON path of the spec member, or file and row, that is at fault.</param>
/// <param name="LogTail">The last lines that the training process wrote to its log.</param>
public sealed record JobFailure(string Code, string Message, string? Param, string? LogTail)
{
    public Responsibility Responsibility => FailureCodes.ResponsibilityFor(Code);
}

/// <summary>The closed list of failure codes.</summary>
public static class FailureCodes
{
    public const string InvalidData = "invalid_data";
    public const string InvalidSpec = "invalid_spec";
    public const string OutOfMemory = "out_of_memory";
    public const string Diverged = "diverged";
    public const string Storage = "storage";
    public const string WorkerLost = "worker_lost";
    public const string Timeout = "timeout";
    public const string Internal = "internal";

    /// <summary>Who must act. Only platform failures are worth another attempt.</summary>
    public static Responsibility ResponsibilityFor(string code) => code switch
    {
        InvalidData or InvalidSpec or OutOfMemory or Diverged or Timeout => Responsibility.User,
        Storage or WorkerLost or Internal => Responsibility.Platform,
        _ => throw new ArgumentOutOfRangeException(nameof(code), code, "Not a failure code."),
    };
}
