using System.Text.Json;
using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Data.Rows;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data.Tokenizing;

/// <summary>Conversations as the model's own chat template renders them.</summary>
internal static class TemplateRendering
{
    /// <summary>The whole conversation, divided where assistant turns begin and end.</summary>
    /// <remarks>A turn begins where the template, given the turns before it, asks for an answer; that text is what the model sees at inference.
    /// It ends behind the template's own end-of-turn token, and before the white space that many templates put after that.</remarks>
    /// <exception cref="RowException">The template refuses the conversation, or hides where its turns are.</exception>
    public static IReadOnlyList<Piece> Pieces(ChatTemplate template, Conversation conversation)
    {
        var messages = conversation.Turns.Select(turn => turn.Message).ToList();
        var whole = Render(template, messages, asksForAnswer: false, conversation.Tools);
        var pieces = new List<Piece>();
        var at = 0;
        for (var i = 0; i < messages.Count; i++)
        {
            if (!conversation.Turns[i].IsAssistant)
            {
                continue;
            }

            var start = Start(template, messages, i, whole, at, conversation.Tools);
            var end = End(template, messages, i, whole, start, conversation.Tools);
            pieces.Add(new(whole[at..start], Trained: false));
            pieces.Add(new(whole[start..end], conversation.Turns[i].Trained));
            at = end;
        }

        pieces.Add(new(whole[at..], Trained: false));
        return [.. pieces.Where(piece => piece.Text.Length > 0)];
    }

    private static int Start(ChatTemplate template, List<ChatMessage> messages, int index, string whole, int at, JsonElement? tools)
    {
        if (index > 0)
        {
            var asked = Render(template, messages[..index], asksForAnswer: true, tools);
            if (asked.Length >= at && whole.StartsWith(asked, StringComparison.Ordinal))
            {
                return asked.Length;
            }
        }

        // Some templates shorten earlier turns or begin an answer with text of their own; the turn's text still shows where it stands.
        var content = messages[index].Content.Trim();
        var found = content.Length == 0 ? -1 : whole.IndexOf(content, at, StringComparison.Ordinal);
        return found >= 0
            ? found
            : throw new RowException(
                "template_hides_turn", "the model's chat template does not show where this assistant turn begins; use prompt and completion columns",
                $"messages[{index}]");
    }

    private static int End(ChatTemplate template, List<ChatMessage> messages, int index, string whole, int start, JsonElement? tools)
    {
        var upTo = index == messages.Count - 1 ? whole : Render(template, messages[..(index + 1)], asksForAnswer: false, tools);
        var content = messages[index].Content.Trim();
        var inside = content.Length == 0 ? -1 : whole.IndexOf(content, start, StringComparison.Ordinal);
        var behindContent = inside < 0 ? start : inside + content.Length;
        if (upTo.Length < behindContent || !whole.StartsWith(upTo, StringComparison.Ordinal))
        {
            return behindContent;
        }

        var marker = upTo[behindContent..].TrimEnd();
        return marker.Length == 0 ? upTo.Length : behindContent + marker.Length;
    }

    private static string Render(ChatTemplate template, IReadOnlyList<ChatMessage> messages, bool asksForAnswer, JsonElement? tools)
    {
        try
        {
            return template.Render(messages, asksForAnswer, tools);
        }
        catch (TrainingException refused)
        {
            throw new RowException("template_error", $"the model's chat template refuses the conversation: {refused.Message}");
        }
    }
}
