using System.Globalization;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>What can be wrong with a chat template, in the owner's words.</summary>
internal static class JinjaErrors
{
    private const string Param = "chat_template";

    public static TrainingException Syntax(int line, string what) =>
        TrainingException.InvalidData(string.Create(CultureInfo.InvariantCulture, $"The chat template cannot be read: in line {line} {what}."), Param);

    public static TrainingException Run(string what) => TrainingException.InvalidData($"The chat template failed: {what}.", Param);

    public static TrainingException Raised(string message) =>
        TrainingException.InvalidData($"The chat template refused the conversation: {message}", Param);

    public static TrainingException Limit(string what) =>
        TrainingException.InvalidData($"The chat template was stopped: {what}; a template for training needs far less.", Param);
}
