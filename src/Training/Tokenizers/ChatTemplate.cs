using System.Text.Json;

namespace TrainingService.Training.Tokenizers;

/// <summary>One turn of a conversation.</summary>
/// <param name="Role"><c>system</c>, <c>user</c>, <c>assistant</c>, <c>tool</c>, …</param>
/// <param name="Content">Text; empty when the turn only calls tools.</param>
/// <param name="Extra">Further members of the message (<c>name</c>, <c>tool_calls</c>, <c>tool_call_id</c>) as the template sees them.</param>
public sealed record ChatMessage(string Role, string Content, IReadOnlyDictionary<string, JsonElement>? Extra = null);

/// <summary>Renders a conversation as the text that the model was trained on.</summary>
public abstract class ChatTemplate
{
    /// <summary>The conversation as one text, special tokens written out.</summary>
    /// <param name="addGenerationPrompt">Whether the text ends where an assistant's answer begins.</param>
    /// <param name="tools">Tool descriptions (a JSON array); null when there are none.</param>
    /// <exception cref="TrainingException">The template raises an error, loops without end, or cannot be read.</exception>
    public abstract string Render(IReadOnlyList<ChatMessage> messages, bool addGenerationPrompt, JsonElement? tools = null);
}
