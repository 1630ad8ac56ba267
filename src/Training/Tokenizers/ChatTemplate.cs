using System.Text.Json;

namespace TrainingService.Training.Tokenizers;

/// <summary>One turn of a conversation.</summary>
/// <param name="Role"><c>system</c>, <c>user</c>, <c>assistant</c>, <c>tool</c>, …</param>
/// <param name="Content">Text; empty when the turn only calls tools.</param>
/// <param name="Extra">
/// Further members of the message (<c>name</c>, <c>tool_calls</c>, <c>tool_call_id</c>) as the template sees them; a member
/// <c>content</c> (null, or a list of parts) takes the place of the text.
/// </param>
public sealed record ChatMessage(string Role, string Content, IReadOnlyDictionary<string, JsonElement>? Extra = null);

/// <summary>Renders a conversation as the text that the model was trained on.</summary>
public abstract class ChatTemplate
{
    /// <summary>The conversation as one text, special tokens written out.</summary>
    /// <param name="addGenerationPrompt">Whether the text ends where an assistant's answer begins.</param>
    /// <param name="tools">Tool descriptions (a JSON array); null when there are none.</param>
    /// <exception cref="TrainingException">The template raises an error, loops without end, or cannot be read.</exception>
    public abstract string Render(IReadOnlyList<ChatMessage> messages, bool addGenerationPrompt, JsonElement? tools = null);

    /// <summary>The conversation as one text, and which of its characters the assistant said.</summary>
    /// <returns>
    /// The text, and a span for each assistant message, in order. Where the template marks generated text (<c>{% generation %}</c>) a
    /// span is what it marks; else it is what the message adds behind the generation prompt, the end of the turn included.
    /// </returns>
    /// <exception cref="TrainingException">The template renders earlier turns differently once later ones follow, so spans cannot be told.</exception>
    public virtual (string Text, IReadOnlyList<(int Start, int Length, int MessageIndex)> AssistantSpans) RenderWithSpans(
        IReadOnlyList<ChatMessage> messages, JsonElement? tools = null)
    {
        var text = Render(messages, addGenerationPrompt: false, tools);
        var spans = new List<(int, int, int)>();
        for (var i = 0; i < messages.Count; i++)
        {
            if (messages[i].Role != "assistant")
            {
                continue;
            }

            var before = Render([.. messages.Take(i)], addGenerationPrompt: true, tools);
            var after = i == messages.Count - 1 ? text : Render([.. messages.Take(i + 1)], addGenerationPrompt: false, tools);
            if (!after.StartsWith(before, StringComparison.Ordinal) || !text.StartsWith(after, StringComparison.Ordinal))
            {
                throw TrainingException.InvalidData(
                    $"The chat template renders the turns before message {i} differently once it follows, so the assistant's text cannot be told "
                    + "from the rest; mark it in the template with {% generation %}, or train on prompt and completion columns.",
                    $"messages[{i}]");
            }

            spans.Add((before.Length, after.Length - before.Length, i));
        }

        return (text, spans);
    }
}
