using System.Text.Json;

namespace TrainingService.Training.Checkpoints;

/// <summary>JSON from files of strangers.</summary>
internal static class HostileJson
{
    /// <summary>Whether <paramref name="error"/> says that a document is no proper JSON.</summary>
    /// <remarks>
    /// An escape such as <c>\ud800</c> is valid JSON and yet no text. The reader notices when the text is asked for, and then throws an
    /// <see cref="InvalidOperationException"/> that only its source tells from a defect of ours.
    /// </remarks>
    public static bool IsMalformed(Exception error) =>
        error is JsonException
        || (error is InvalidOperationException { Source: { } source } && source.StartsWith("System.Text.Json", StringComparison.Ordinal));
}
