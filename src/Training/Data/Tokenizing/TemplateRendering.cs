using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Data.Rows;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data.Tokenizing;

/// <summary>Conversations as the model's own chat template renders them.</summary>
internal static class TemplateRendering
{
    /// <summary>The whole conversation, divided where the assistant's spans begin and end.</summary>
    /// <exception cref="RowException">The template refuses the conversation, or hides where its turns are.</exception>
    public static IReadOnlyList<Piece> Pieces(ChatTemplate template, Conversation conversation)
    {
        var (text, spans) = Render(template, conversation);
        var pieces = new List<Piece>();
        var at = 0;
        foreach (var (start, length, message) in spans)
        {
            pieces.Add(new(text[at..start], Trained: false));
            at = start + length;
            pieces.Add(new(text[start..at], conversation.Turns[message] is { IsAssistant: true, Trained: true }));
        }

        pieces.Add(new(text[at..], Trained: false));
        return [.. pieces.Where(piece => piece.Text.Length > 0)];
    }

    private static (string Text, IReadOnlyList<(int Start, int Length, int MessageIndex)> Spans) Render(
        ChatTemplate template, Conversation conversation)
    {
        try
        {
            return template.RenderWithSpans([.. conversation.Turns.Select(turn => turn.Message)], conversation.Tools);
        }
        catch (TrainingException refused)
        {
            var hidesTurn = refused.Param?.StartsWith("messages[", StringComparison.Ordinal) == true;
            throw hidesTurn
                ? new RowException("template_hides_turn", refused.Message, refused.Param)
                : new RowException("template_error", refused.Message);
        }
    }
}
