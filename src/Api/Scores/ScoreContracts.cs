using System.ComponentModel;
using System.Text.Json;
using System.Text.Json.Serialization;
using TrainingService.Training.Scoring;

namespace TrainingService.Api.Scores;

/// <summary>Answers to be scored by a reward model.</summary>
internal sealed record ScoreRequest(
    [property: JsonRequired, Description("A fine-tuned reward model, by its name (ft:…) or its job's id; or a registered model with a score head.")] string Model,
    [property: JsonRequired, Description(
        "Rows: {prompt, responses: [..]} with texts or messages, or {messages: [..]} that end with the answer. Every other form of a row that has one answer is read as in training.")]
    IReadOnlyList<JsonElement> Input);

/// <summary>What the model says of one answer.</summary>
internal sealed record ScoreResponse(
    [property: Description("Which answer of its row.")] int Index,
    [property: Description("Rewards of one model compare with each other; they have no unit.")] float Reward,
    [property: Description("Share of the answers of the run's validation rows with a lower reward, 0 to 100; null: the run had none.")] double? Percentile,
    [property: Description("Standard deviation of the rewards of an ensemble's members; null: the model has one head.")] float? Disagreement,
    [property: Description("Tokens of prompt and answer.")] int Tokens)
{
    [Description("The critique that was written before the score, by a model of objective critique_reward; left out otherwise.")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Critique { get; init; }
}

/// <summary>The scores of one row.</summary>
internal sealed record RowScores(
    [property: Description("Which row of input.")] int Index,
    [property: Description("One for each answer, in order.")] IReadOnlyList<ScoreResponse> Scores,
    [property: Description("Index of the answer with the highest reward; of equal ones the first.")] int Best)
{
    public string Object { get; } = "score";

    public static RowScores From(int index, IReadOnlyList<AnswerScore> scores) => new(
        index,
        [.. scores.Select((score, answer) => new ScoreResponse(answer, score.Reward, score.Percentile, score.Disagreement, score.Tokens) { Critique = score.Critique })],
        scores.Index().MaxBy(score => score.Item.Reward).Index);
}

/// <summary>Tokens that were read.</summary>
internal sealed record ScoreUsage(long PromptTokens, long TotalTokens);

/// <summary>Scores of all rows, in their order.</summary>
internal sealed record ScoresResponse(string Model, IReadOnlyList<RowScores> Data, ScoreUsage Usage)
{
    public string Object { get; } = "list";
}
