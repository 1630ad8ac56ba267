using System.Text.Json;
using TrainingService.Training.Data.Rows;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data.Layouts;

/// <summary>Rows whose parts are separate columns.</summary>
internal static class TextLayouts
{
    public static Sample ReadPromptCompletion(Fields fields)
    {
        var prompt = fields["prompt"];
        var completion = fields["completion"];
        if (prompt.ValueKind == JsonValueKind.String && completion.ValueKind == JsonValueKind.String)
        {
            return new PromptAndCompletion(fields.Text("prompt"), fields.Text("completion"));
        }

        if (prompt.ValueKind == JsonValueKind.Array && completion.ValueKind == JsonValueKind.Array)
        {
            var given = ConversationLayouts.Messages(fields.List("prompt"), "prompt").Select(turn => turn with { Trained = false });
            return new Conversation(
                [.. given, .. ConversationLayouts.Messages(fields.List("completion"), "completion")], ConversationLayouts.Tools(fields, "tools"));
        }

        throw new RowException(
            "wrong_type",
            $"prompt and completion must both be strings or both lists of messages, found {Fields.Describe(prompt)} and "
            + Fields.Describe(completion),
            "prompt");
    }

    public static Sample ReadAlpaca(Fields fields)
    {
        var history = new List<(string, string)>();
        if (fields.Has("history") && !IsEmptyText(fields["history"]))
        {
            var pairs = fields.List("history");
            for (var i = 0; i < pairs.Count; i++)
            {
                var field = $"history[{i}]";
                var pair = Fields.List(pairs[i], field);
                if (pair.Count != 2)
                {
                    throw new RowException("wrong_length", $"must be a pair of user and assistant text, found {pair.Count} elements", field);
                }

                history.Add((Fields.Text(pair[0], field + "[0]"), Fields.Text(pair[1], field + "[1]")));
            }
        }

        return new InstructionTask(
            fields.OptionalText("system"), history, fields.Text("instruction"), fields.OptionalText("input"), fields.Text("output"));
    }

    public static Sample ReadOpenOrca(Fields fields) =>
        new InstructionTask(fields.OptionalText("system_prompt"), [], fields.Text("question"), "", fields.Text("response"));

    public static Sample ReadQuestionAnswer(Fields fields) => new Conversation(
        [
            new(new ChatMessage("user", fields.Text("question")), Trained: false),
            new(new ChatMessage("assistant", fields.Text("answer")), Trained: true),
        ],
        Tools: null);

    private static bool IsEmptyText(JsonElement value) => value.ValueKind == JsonValueKind.String && value.GetString() == "";
}
