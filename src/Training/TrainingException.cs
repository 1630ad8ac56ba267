namespace TrainingService.Training;

/// <summary>Why a run ended without a result. The closed list of failure codes that reach a user.</summary>
public enum FailureCode
{
    /// <summary>A row, file, checkpoint or tokenizer cannot be used.</summary>
    InvalidData,

    /// <summary>The training spec asks for something that does not exist or does not fit.</summary>
    InvalidSpec,

    /// <summary>Host or device memory was not enough.</summary>
    OutOfMemory,

    /// <summary>The loss stopped being a finite number.</summary>
    Diverged,

    /// <summary>A file could not be read or written.</summary>
    Storage,

    /// <summary>The run took longer than it was allowed to.</summary>
    Timeout,

    /// <summary>A defect of ours.</summary>
    Internal,
}

/// <summary>An expected end of a run: its message is one sentence that tells the owner of the job what to change.</summary>
/// <param name="code">Failure code, for programs.</param>
/// <param name="message">One sentence that names the thing, the value seen and the fix.</param>
/// <param name="param">JSON path of the spec member, or file and row, that is at fault.</param>
public sealed class TrainingException(FailureCode code, string message, string? param = null, Exception? inner = null)
    : Exception(Shorten(message, LongestMessage), inner)
{
    private const int LongestMessage = 4000;
    private const int LongestParam = 500;

    public FailureCode Code { get; } = code;

    public string? Param { get; } = param is null ? null : Shorten(param, LongestParam);

    /// <summary>A row, file, checkpoint or tokenizer that cannot be used.</summary>
    public static TrainingException InvalidData(string message, string? param = null, Exception? inner = null) =>
        new(FailureCode.InvalidData, message, param, inner);

    /// <summary>A spec that asks for something that does not exist or does not fit.</summary>
    public static TrainingException InvalidSpec(string message, string? param = null) =>
        new(FailureCode.InvalidSpec, message, param);

    /// <summary>Names and values of strangers stand in messages, and a file may hold a name of any length and of any characters.</summary>
    private static string Shorten(string text, int most) => SafeText.Escape(text.Length <= most ? text : text[..most] + "…");
}
