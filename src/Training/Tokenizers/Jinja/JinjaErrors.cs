using System.Globalization;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>What can be wrong with a chat template, in the owner's words.</summary>
internal static class JinjaErrors
{
    private const string Param = "chat_template";
    private const int LongestMessage = 1000;   // a template can raise any text

    public static TrainingException Syntax(int line, string what) =>
        TrainingException.InvalidData(string.Create(CultureInfo.InvariantCulture, $"The chat template cannot be read: in line {line} {Shorten(what)}."), Param);

    public static TrainingException Run(string what) => TrainingException.InvalidData($"The chat template failed: {Shorten(what)}.", Param);

    public static TrainingException Raised(string message) =>
        TrainingException.InvalidData($"The chat template refused the conversation: {Shorten(message)}", Param);

    public static TrainingException Limit(string what) =>
        TrainingException.InvalidData($"The chat template was stopped: {what}; a template for training needs far less.", Param);

    private static string Shorten(string text) => text.Length <= LongestMessage ? text : text[..LongestMessage] + "…";
}
