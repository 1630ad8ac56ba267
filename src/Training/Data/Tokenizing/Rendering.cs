using System.Text.Json;
using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data.Tokenizing;

/// <summary>Samples as text, in pieces. Every piece that carries loss begins where a model would be asked to go on.</summary>
internal static class Rendering
{
    public static IReadOnlyList<Piece> Plain(PlainText sample) => [new(sample.Text, Trained: true, EndsText: true)];

    /// <summary>Joined as they stand: a space or line break between the two belongs to one of them.</summary>
    public static IReadOnlyList<Piece> Plain(PromptAndCompletion sample) =>
        [new(sample.Prompt, Trained: false), new(sample.Completion, Trained: true, EndsText: true)];

    /// <summary>The wording with which Alpaca was published.</summary>
    /// <remarks>Taori et al. 2023, "Stanford Alpaca", prompts with and without input. A system text stands before it, and earlier turns are
    /// further instruction and response sections; the publication knows neither.</remarks>
    public static IReadOnlyList<Piece> Alpaca(InstructionTask sample)
    {
        var intro = sample.Input.Length > 0
            ? "Below is an instruction that describes a task, paired with an input that provides further context. "
                + "Write a response that appropriately completes the request.\n\n"
            : "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n";
        var pieces = new List<Piece>();
        var before = (sample.System.Length > 0 ? sample.System + "\n\n" : "") + intro;
        foreach (var (user, assistant) in sample.History)
        {
            pieces.Add(new($"{before}### Instruction:\n{user}\n\n### Response:\n", Trained: false));
            pieces.Add(new(assistant, Trained: true, EndsText: true));
            before = "\n\n";
        }

        var input = sample.Input.Length > 0 ? $"### Input:\n{sample.Input}\n\n" : "";
        pieces.Add(new($"{before}### Instruction:\n{sample.Instruction}\n\n{input}### Response:\n", Trained: false));
        pieces.Add(new(sample.Output, Trained: true, EndsText: true));
        return pieces;
    }

    /// <summary>The same task as turns, for models that have a chat template.</summary>
    public static Conversation AsConversation(InstructionTask sample)
    {
        var turns = new List<Turn>();
        if (sample.System.Length > 0)
        {
            turns.Add(new(new ChatMessage("system", sample.System), Trained: false));
        }

        foreach (var (user, assistant) in sample.History)
        {
            turns.Add(new(new ChatMessage("user", user), Trained: false));
            turns.Add(new(new ChatMessage("assistant", assistant), Trained: true));
        }

        var question = sample.Input.Length > 0 ? $"{sample.Instruction}\n{sample.Input}" : sample.Instruction;
        turns.Add(new(new ChatMessage("user", question), Trained: false));
        turns.Add(new(new ChatMessage("assistant", sample.Output), Trained: true));
        return new(turns, Tools: null);
    }

    /// <summary>For models without a chat template: one line per turn, <c>User: …</c> and <c>Assistant: …</c>, the end-of-text token after
    /// each assistant turn. Plain words rather than markers such as ChatML's, which these models have never seen as tokens.</summary>
    public static IReadOnlyList<Piece> Lines(Conversation sample)
    {
        var pieces = new List<Piece>();
        var before = sample.Tools is { } tools ? $"Tools: {tools.GetRawText()}\n" : "";
        foreach (var turn in sample.Turns)
        {
            var content = Text(turn.Message);
            if (turn.IsAssistant)
            {
                // The space belongs to the answer: word-initial tokens carry it, and a prompt that ends in one would split them.
                pieces.Add(new(before + "Assistant:", Trained: false));
                pieces.Add(new(" " + content, turn.Trained, EndsText: true));
                before = "\n";
            }
            else
            {
                var name = turn.Message.Role switch
                {
                    "system" => "System",
                    "user" => "User",
                    _ => "Tool",
                };
                before += $"{name}: {content}\n";
            }
        }

        return before.Length > 0 && before != "\n" ? [.. pieces, new(before, Trained: false)] : pieces;
    }

    private static string Text(ChatMessage message) =>
        message.Extra is { } extra && extra.TryGetValue("tool_calls", out var calls)
            ? $"{message.Content}{JsonSerializer.Serialize(calls)}"
            : message.Content;
}
