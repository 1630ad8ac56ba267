using System.Text.Json;
using TrainingService.Training.Data.Rows;

namespace TrainingService.Training.Data.Layouts;

/// <summary>A set of column names and what they mean.</summary>
/// <param name="Name">As the report shows it.</param>
/// <param name="Format">The member of <see cref="DataConfig.Format"/> that admits this layout.</param>
internal sealed record RowLayout(
    string Name, DataFormat Format, IReadOnlyList<string> Required, IReadOnlyList<string> Optional, Func<Fields, Sample> Read)
{
    /// <summary>Rows of one sequence, the more telling columns first: data sets often carry a rendered <c>text</c> beside the parts it was made of.</summary>
    private static readonly IReadOnlyList<RowLayout> Sequences =
    [
        new("tokenized", DataFormat.Tokenized, ["input_ids"], ["labels", "attention_mask"], TokenizedLayout.Read),
        new("messages", DataFormat.Messages, ["messages"], ["tools", "functions"], ConversationLayouts.ReadMessages),
        new("sharegpt", DataFormat.Sharegpt, ["conversations"], ["system", "tools"], ConversationLayouts.ReadShareGpt),
        new("prompt_completion", DataFormat.PromptCompletion, ["prompt", "completion"], ["tools"], TextLayouts.ReadPromptCompletion),
        new("alpaca", DataFormat.Alpaca, ["instruction", "output"], ["input", "system", "history"], TextLayouts.ReadAlpaca),
        new("open_orca", DataFormat.Alpaca, ["question", "response"], ["system_prompt"], TextLayouts.ReadOpenOrca),
        new("question_answer", DataFormat.PromptCompletion, ["question", "answer"], [], TextLayouts.ReadQuestionAnswer),
        new("text", DataFormat.Text, ["text"], [], fields => new PlainText(fields.Text("text"))),
    ];

    /// <summary>Every layout that an objective can read.</summary>
    public static IReadOnlyList<RowLayout> For(RowUse use) => use switch
    {
        RowUse.Pairs => PreferenceLayouts.Pairs,
        RowUse.Critiques => CritiqueLayouts.All,
        RowUse.Capabilities => CapabilityLayouts.All,
        RowUse.Verdicts => PreferenceLayouts.Verdicts,
        RowUse.Scores => PreferenceLayouts.Scores,
        _ => Sequences,
    };

    /// <summary>Whether a layout of that name holds answers that are judged.</summary>
    public static bool IsJudged(string name) => !Sequences.Any(layout => layout.Name == name);

    public bool Fits(IReadOnlySet<string> columns) => Required.All(columns.Contains);

    public bool Reads(string column) => Required.Contains(column) || Optional.Contains(column);

    /// <summary>The layout of a file with these columns.</summary>
    /// <param name="columns">Column names after renaming.</param>
    /// <exception cref="RowException">None fits; the message names the nearest and what it lacks.</exception>
    public static RowLayout Of(IReadOnlySet<string> columns, DataFormat format, RowUse use)
    {
        var readable = For(use);
        var admitted = readable.Where(layout => format == DataFormat.Auto || layout.Format == format).ToList();
        if (admitted.Count == 0)
        {
            throw new RowException(
                "unknown_layout", $"data.format is {JsonNamingPolicy.SnakeCaseLower.ConvertName(format.ToString())}, which this objective does not read; "
                + "use auto, or " + string.Join(" or ", readable.Select(layout => JsonNamingPolicy.SnakeCaseLower.ConvertName(layout.Format.ToString())).Distinct()));
        }

        if (admitted.Find(layout => layout.Fits(columns)) is { } found)
        {
            return found;
        }

        var nearest = admitted.MinBy(layout => layout.Required.Average(name => columns.Min(column => Distance(name, column))))!;
        var missing = nearest.Required.Where(name => !columns.Contains(name)).Select(name => $"'{name}'").ToList();
        var lacks = (missing.Count == 1 ? "column " : "columns ") + string.Join(" and ", missing);
        var seen = string.Join(", ", columns.Take(12).Select(column => $"'{column}'"));
        if (!use.IsJudged() && columns.Contains("chosen") && columns.Contains("rejected"))
        {
            throw new RowException(
                "unknown_layout", $"the columns ({seen}) hold preference pairs, which this objective does not train on: use reward or dpo; "
                + $"the nearest layout is {nearest.Name}, which needs {lacks}");
        }

        var wanted = format == DataFormat.Auto ? "fit no layout" : "do not fit data.format";
        throw new RowException(
            "unknown_layout",
            $"the columns ({seen}) {wanted}; the nearest is {nearest.Name}, which lacks {lacks}: rename the columns with data.columns");
    }

    /// <summary>Edits from one name to the other as a share of the longer one: 0 equal, 1 nothing in common.</summary>
    private static double Distance(string left, string right)
    {
        var costs = Enumerable.Range(0, right.Length + 1).ToArray();
        for (var i = 1; i <= left.Length; i++)
        {
            var diagonal = costs[0];
            costs[0] = i;
            for (var j = 1; j <= right.Length; j++)
            {
                var same = char.ToLowerInvariant(left[i - 1]) == char.ToLowerInvariant(right[j - 1]);
                var best = Math.Min(diagonal + (same ? 0 : 1), Math.Min(costs[j], costs[j - 1]) + 1);
                diagonal = costs[j];
                costs[j] = best;
            }
        }

        return (double)costs[right.Length] / Math.Max(1, Math.Max(left.Length, right.Length));
    }
}
