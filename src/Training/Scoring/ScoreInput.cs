using System.Text.Json;
using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Data.Rows;

namespace TrainingService.Training.Scoring;

/// <summary>One row to be scored: answers to one prompt.</summary>
/// <remarks>
/// <c>prompt</c> (a text, or messages) with <c>responses</c>, <c>response</c> or <c>completion</c>; <c>messages</c> that end with the answer, or with
/// <c>responses</c> beside them; <c>instruction</c> (and <c>input</c>, <c>system</c>) with <c>responses</c> or <c>output</c>; <c>text</c>. They become what rows
/// of these forms become in training.
/// </remarks>
public sealed class ScoreInput
{
    private static readonly string[] One = ["response", "completion", "output"];

    private ScoreInput(IReadOnlyList<Sample> answers, IReadOnlyList<string> places) => (Answers, Places) = (answers, places);

    /// <summary>Prompt and answer of each candidate.</summary>
    internal IReadOnlyList<Sample> Answers { get; }

    /// <summary>Where each answer stands, such as <c>input[0].responses[1]</c>.</summary>
    public IReadOnlyList<string> Places { get; }

    /// <summary>Reads a row. Loads no libtorch and no tokenizer.</summary>
    /// <param name="place">What the row is called in messages, such as <c>input[0]</c>.</param>
    /// <exception cref="TrainingException">It has no such form; the message names the member.</exception>
    public static ScoreInput Read(JsonElement row, string place)
    {
        try
        {
            var fields = Fields.Object(row, place);
            return fields.Has("responses") ? Many(fields, place) : Single(fields, place);
        }
        catch (RowException broken)
        {
            var field = broken.Fault.Field;
            var param = field is null || field == place ? place : $"{place}.{field[(field.StartsWith(place + ".", StringComparison.Ordinal) ? place.Length + 1 : 0)..]}";
            throw TrainingException.InvalidData($"{param} {broken.Message}.", param);
        }
    }

    private static ScoreInput Many(Fields fields, string place)
    {
        var responses = Fields.List(fields["responses"], "responses");
        if (responses.Count == 0)
        {
            throw new RowException("empty_list", "must hold at least one answer", "responses");
        }

        return new(
            [.. responses.Select((response, index) => Checked(Of(fields, response, $"responses[{index}]"), $"responses[{index}]"))],
            [.. responses.Select((_, index) => $"{place}.responses[{index}]")]);
    }

    private static ScoreInput Single(Fields fields, string place)
    {
        if (Array.Find(One, fields.Has) is { } member)
        {
            return new([Checked(Of(fields, fields[member], member), member)], [$"{place}.{member}"]);
        }

        if (fields.Has("messages"))
        {
            var conversation = (Conversation)ConversationLayouts.ReadMessages(fields);
            return new([Checked(PreferenceLayouts.LastAnswer(conversation, "messages"), "messages")], [$"{place}.messages"]);
        }

        return fields.Has("text")
            ? new([Checked(new PlainText(fields.Text("text")), "text")], [$"{place}.text"])
            : throw new RowException("unknown_layout", "needs prompt and responses, or messages that end with the answer");
    }

    private static Sample Of(Fields fields, JsonElement response, string member)
    {
        if (fields.Has("instruction"))
        {
            return new InstructionTask(
                fields.OptionalText("system"), [], fields.Text("instruction"), fields.OptionalText("input"), Fields.Text(response, member));
        }

        var name = fields.Has("messages") ? "messages" : "prompt";
        var prompt = fields[name];
        if (name == "prompt" && prompt.ValueKind == JsonValueKind.String)
        {
            return new PromptAndCompletion(fields.Text(name), Fields.Text(response, member));
        }

        var before = ConversationLayouts.Messages(fields.List(name), name).Select(turn => turn with { Trained = false });
        var answer = response.ValueKind switch
        {
            JsonValueKind.String => [new Turn(new("assistant", Fields.Text(response, member)), Trained: true)],
            JsonValueKind.Object => ConversationLayouts.Messages([response], member),
            _ => ConversationLayouts.Messages(Fields.List(response, member), member),
        };
        return PreferenceLayouts.LastAnswer(new([.. before, .. answer], ConversationLayouts.Tools(fields, "tools")), member);
    }

    private static Sample Checked(Sample answer, string member) => answer is PromptAndCompletion { Completion: "" } or InstructionTask { Output: "" } or PlainText { Text: "" }
        || (answer is Conversation conversation && conversation.Turns[^1].IsEmpty)
        ? throw new RowException("empty_answer", "is an empty answer, which no model was trained to score", member)
        : answer;
}
