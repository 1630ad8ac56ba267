using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Scoring;

namespace TrainingService.Worker.Scoring;

/// <summary>What the scoring process is asked, in one line of its standard input.</summary>
/// <param name="Id">Of the reply, too.</param>
/// <param name="Model">Folder of the model, or of the base of its adapter.</param>
/// <param name="Adapter">Folder of the adapter; null: none.</param>
/// <param name="Input">Rows; see <see cref="ScoreInput"/>.</param>
internal sealed record ScoreCall(long Id, string Model, string? Adapter, IReadOnlyList<JsonElement> Input);

/// <summary>What it answers, in one line of its standard output: scores of every answer of every row, or why there are none.</summary>
internal sealed record ScoreReply(long Id, IReadOnlyList<IReadOnlyList<AnswerScore>>? Scores, ScoreFault? Error);

/// <param name="Code">Stable, for programs.</param>
/// <param name="Param">What is at fault, such as <c>input[0].responses[1]</c>.</param>
internal sealed record ScoreFault(string Code, string Message, string? Param);

internal static class ScoreMessages
{
    public static JsonSerializerOptions Json { get; } = new(SpecJson.Options) { WriteIndented = false };
}
