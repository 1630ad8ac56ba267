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
    /// The text, and spans in order, one for each assistant message. Where the template marks generated text (<c>{% generation %}</c>) the
    /// spans are what it marks; else each is what the message adds behind the generation prompt: that prompt is what the model sees at
    /// inference. It ends behind the end-of-turn token, and before the white space that many templates put after that.
    /// </returns>
    /// <exception cref="TrainingException">The template refuses the conversation, or hides where an assistant's turn begins.</exception>
    public virtual (string Text, IReadOnlyList<(int Start, int Length, int MessageIndex)> AssistantSpans) RenderWithSpans(
        IReadOnlyList<ChatMessage> messages, JsonElement? tools = null)
    {
        var text = Render(messages, addGenerationPrompt: false, tools);
        var spans = new List<(int, int, int)>();
        var at = 0;
        for (var i = 0; i < messages.Count; i++)
        {
            if (messages[i].Role != "assistant")
            {
                continue;
            }

            var start = StartOfTurn(messages, i, text, at, tools);
            at = EndOfTurn(messages, i, text, start, tools);
            spans.Add((start, at - start, i));
        }

        return (text, spans);
    }

    private int StartOfTurn(IReadOnlyList<ChatMessage> messages, int index, string text, int at, JsonElement? tools)
    {
        if (index > 0)
        {
            var asked = Render([.. messages.Take(index)], addGenerationPrompt: true, tools);
            if (asked.Length >= at && text.StartsWith(asked, StringComparison.Ordinal))
            {
                return asked.Length;
            }
        }

        // Some templates shorten earlier turns or begin an answer with text of their own; the turn's text still shows where it stands.
        var (start, _) = Find(messages[index].Content, text, at);
        return start >= 0
            ? start
            : throw TrainingException.InvalidData(
                $"The chat template does not show where the assistant's message {index} begins; mark it in the template with "
                + "{% generation %}, or train on prompt and completion columns.",
                $"messages[{index}]");
    }

    private int EndOfTurn(IReadOnlyList<ChatMessage> messages, int index, string text, int start, JsonElement? tools)
    {
        var upTo = index == messages.Count - 1 ? text : Render([.. messages.Take(index + 1)], addGenerationPrompt: false, tools);
        var (_, contentEnd) = Find(messages[index].Content, text, start);
        contentEnd = Math.Max(contentEnd, start);
        if (upTo.Length >= contentEnd && text.StartsWith(upTo, StringComparison.Ordinal))
        {
            var marker = upTo[contentEnd..].TrimEnd();
            return marker.Length == 0 ? upTo.Length : contentEnd + marker.Length;
        }

        // Rendered as the last turn, the message looks different (an empty block of thoughts, for one), but it ends in the same way.
        var content = messages[index].Content.Trim();
        var last = content.Length == 0 ? -1 : upTo.LastIndexOf(content, StringComparison.Ordinal);
        var ending = last < 0 ? "" : upTo[(last + content.Length)..].TrimEnd();
        return text.AsSpan(contentEnd).StartsWith(ending, StringComparison.Ordinal) ? contentEnd + ending.Length : contentEnd;
    }

    /// <summary>Where a message's text stands; -1 and -1 when it has none, or the template changes it.</summary>
    private static (int Start, int End) Find(string content, string text, int from)
    {
        var trimmed = content.Trim();   // as most templates do
        var start = trimmed.Length == 0 ? -1 : text.IndexOf(trimmed, from, StringComparison.Ordinal);
        return start < 0 ? (-1, -1) : (start, start + trimmed.Length);
    }
}
