using System.Text.Json;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Data;

/// <summary>One token per character: id = code + 3. Ids 1 and 2 are &lt;s&gt; and &lt;/s&gt;.</summary>
/// <param name="merges">Pairs of characters that become one token where they meet, left to right: ids from 200.</param>
/// <param name="prependsSpace">Whether a space is put in front of every text, as SentencePiece does.</param>
internal sealed class CharacterTokenizer(
    bool addsBos = true, bool hasEos = true, ChatTemplate? template = null, string[]? merges = null, bool prependsSpace = false,
    int vocabulary = 256) : Tokenizer
{
    public const int Bos = 1;
    public const int Eos = 2;

    private readonly string[] _merges = merges ?? [];

    public override int VocabularySize => vocabulary;

    public override int? BosId => Bos;

    public override int? EosId => hasEos ? Eos : null;

    public override int? PadId => null;

    public override ChatTemplate? ChatTemplate => template;

    public override IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true) => EncodeWithOffsets(text, addSpecialTokens).Ids;

    public override (IReadOnlyList<int> Ids, IReadOnlyList<(int Start, int Length)> Offsets) EncodeWithOffsets(
        string text, bool addSpecialTokens = true)
    {
        var ids = new List<int>();
        var offsets = new List<(int Start, int Length)>();
        void Add(int id, int start, int length)
        {
            ids.Add(id);
            offsets.Add((start, length));
        }

        if (addSpecialTokens && addsBos)
        {
            Add(Bos, 0, 0);
        }

        if (prependsSpace && text.Length > 0)
        {
            Add(' ' + 3, 0, 0);
        }

        for (var at = 0; at < text.Length; at += offsets[^1].Length)
        {
            var rest = text[at..];
            var merge = Array.FindIndex(_merges, pair => rest.StartsWith(pair, StringComparison.Ordinal));
            if (rest.StartsWith("</s>", StringComparison.Ordinal))
            {
                Add(Eos, at, 4);
            }
            else if (merge >= 0)
            {
                Add(200 + merge, at, _merges[merge].Length);
            }
            else
            {
                Add(text[at] + 3, at, 1);
            }
        }

        return (ids, offsets);
    }

    public override string Decode(IEnumerable<int> ids, bool skipSpecialTokens = true)
    {
        var text = string.Concat(ids.Select(id => id switch
        {
            Bos => skipSpecialTokens ? "" : "<s>",
            Eos => skipSpecialTokens ? "" : "</s>",
            >= 200 => _merges[id - 200],
            _ => ((char)(id - 3)).ToString(),
        }));
        return prependsSpace && text.StartsWith(' ') ? text[1..] : text;
    }
}

/// <summary>Each turn as <c>(role)content&lt;/s&gt;</c> and a line break; an answer is asked for by <c>(assistant)</c>.</summary>
internal sealed class BracketTemplate : ChatTemplate
{
    public override string Render(IReadOnlyList<ChatMessage> messages, bool addGenerationPrompt, JsonElement? tools = null)
    {
        if (messages.Any(message => message.Content == "refuse me"))
        {
            throw TrainingException.InvalidData("Conversation roles must alternate.");
        }

        return (tools is null ? "" : "(tools)" + tools)
            + string.Concat(messages.Select(message => $"({message.Role}){message.Content}</s>\n"))
            + (addGenerationPrompt ? "(assistant)" : "");
    }
}
