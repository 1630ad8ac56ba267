using System.Text.Json;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data.Layouts;

/// <summary>What a row means, whatever its columns are called.</summary>
internal abstract record Sample;

/// <summary>A document; every token of it carries loss.</summary>
internal sealed record PlainText(string Text) : Sample;

/// <summary>A text and its continuation, joined as they stand.</summary>
internal sealed record PromptAndCompletion(string Prompt, string Completion) : Sample;

/// <summary>A task in Alpaca's terms: a conversation where the model has a chat template, Alpaca's own wording where it has none.</summary>
/// <param name="System">Empty when there is none, like <paramref name="Input"/>.</param>
internal sealed record InstructionTask(
    string System, IReadOnlyList<(string User, string Assistant)> History, string Instruction, string Input, string Output) : Sample;

/// <param name="Tools">Tool descriptions, a JSON array; null when there are none.</param>
internal sealed record Conversation(IReadOnlyList<Turn> Turns, JsonElement? Tools) : Sample
{
    /// <summary>Assistant turns without text and without tool calls.</summary>
    public int EmptyAssistantTurns => Turns.Count(turn => turn is { IsAssistant: true, IsEmpty: true });

    /// <summary>Whether a system turn is not the first, or user and assistant do not alternate (tool results may stand between).</summary>
    public bool BreaksRoleOrder
    {
        get
        {
            var previous = "assistant";
            for (var i = 0; i < Turns.Count; i++)
            {
                var role = Turns[i].Message.Role;
                var fits = role switch
                {
                    "system" => i == 0,
                    "user" => previous is "assistant",
                    "assistant" => previous is "user" or "tool",
                    _ => i > 0 && previous is "assistant" or "tool",
                };
                if (!fits)
                {
                    return true;
                }

                previous = role == "system" ? previous : role;
            }

            return false;
        }
    }
}

/// <summary>Answers to one prompt that are judged as wholes.</summary>
/// <param name="Answers">Prompt and answer each: the better one first of two, or one.</param>
/// <param name="Value">See <see cref="Example.Value"/>.</param>
/// <param name="IsTie">See <see cref="Example.IsTie"/>.</param>
internal sealed record JudgedAnswers(IReadOnlyList<Sample> Answers, float? Value, bool IsTie = false) : Sample
{
    /// <inheritdoc cref="Example.Capability"/>
    public string? Capability { get; init; }
}

/// <summary>An answer to its prompt, and what is said of it, which alone carries loss.</summary>
internal sealed record CritiquedAnswer(Sample Answer, string Critique) : Sample;

/// <summary>A row that says several things of the answers to its prompt.</summary>
internal sealed record Judgements(IReadOnlyList<JudgedAnswers> All) : Sample;

/// <param name="Trained">Whether an assistant's turn carries loss.</param>
internal sealed record Turn(ChatMessage Message, bool Trained)
{
    public bool IsAssistant => Message.Role == "assistant";

    public bool IsEmpty => Message.Content.Length == 0 && Message.Extra?.ContainsKey("tool_calls") != true;
}

/// <summary>Token ids as they are trained on.</summary>
/// <param name="Labels">As long as <paramref name="Ids"/>.</param>
internal sealed record TokenRow(int[] Ids, int[] Labels) : Sample;
