using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data.Tokenizing;

/// <summary>Samples as token ids and labels, before anything is cut.</summary>
internal sealed class SampleEncoder
{
    /// <summary>What stands between an answer and its critique.</summary>
    private const string CritiqueMark = "\nCritique:";

    // Texts whose last token does not merge with what follows; see Continue.
    private static readonly string[] Anchors = ["\n", ".", "a"];

    private readonly Tokenizer _tokenizer;
    private readonly bool _everyToken;
    private readonly IReadOnlyList<int> _prefix;

    /// <param name="everyToken">Whether prompts carry loss too.</param>
    public SampleEncoder(Tokenizer tokenizer, bool everyToken)
    {
        _tokenizer = tokenizer;
        _everyToken = everyToken;
        _prefix = PrefixOf(tokenizer);
    }

    /// <exception cref="Rows.RowException">The chat template refuses the conversation.</exception>
    public (List<int> Ids, List<int> Labels) Encode(Sample sample) => sample switch
    {
        TokenRow row => ([.. row.Ids], [.. row.Labels]),
        PlainText text => Encode(Rendering.Plain(text), _prefix),
        PromptAndCompletion pair => Encode(Rendering.Plain(pair), _prefix),
        InstructionTask task when _tokenizer.ChatTemplate is null => Encode(Rendering.Alpaca(task), _prefix),
        InstructionTask task => Encode(Rendering.AsConversation(task)),
        Conversation conversation when _tokenizer.ChatTemplate is null => Encode(Rendering.Lines(conversation), _prefix),
        // A template writes BOS itself where the model wants one.
        CritiquedAnswer critiqued => Critiqued(critiqued),
        Conversation conversation => Encode(TemplateRendering.Pieces(_tokenizer.ChatTemplate, conversation), []),
        _ => throw new ArgumentOutOfRangeException(nameof(sample), sample.GetType().Name, "No rendering for this sample."),
    };

    /// <summary>An answer up to where its critique begins.</summary>
    public List<int> BeforeCritique(Sample answer) => [.. Encode(answer).Ids, .. _tokenizer.Encode(CritiqueMark, addSpecialTokens: false)];

    /// <summary>The critique follows on the answer and its end of text, after a mark; the end of text follows on it, too.</summary>
    private (List<int> Ids, List<int> Labels) Critiqued(CritiquedAnswer sample)
    {
        var before = BeforeCritique(sample.Answer);
        var critique = Continue(CritiqueMark, " " + sample.Critique);
        if (_tokenizer.EosId is { } end)
        {
            critique = [.. critique, end];
        }

        return ([.. before, .. critique], [.. before.Select(_ => Example.Ignored), .. critique]);
    }

    private (List<int> Ids, List<int> Labels) Encode(IReadOnlyList<Piece> pieces, IReadOnlyList<int> prefix)
    {
        var ids = new List<int>(prefix);
        // BOS is never predicted, so its label decides nothing; a label keeps plain text free of ignored tokens.
        var labels = new List<int>(_everyToken || pieces is [{ Trained: true }, ..] ? prefix : prefix.Select(_ => Example.Ignored));
        var before = "";
        foreach (var piece in pieces)
        {
            var added = Continue(before, piece.Text);
            if (piece.EndsText && _tokenizer.EosId is { } end && (added.Count == 0 || added[^1] != end))
            {
                added = [.. added, end];
            }

            ids.AddRange(added);
            labels.AddRange(piece.Trained || _everyToken ? added : added.Select(_ => Example.Ignored));
            before = piece.Text.Length > 0 ? piece.Text : before;
        }

        return (ids, labels);
    }

    /// <summary>Token ids of <paramref name="text"/> where it follows <paramref name="before"/>.</summary>
    /// <remarks>At inference the text before is tokenised alone, and the model goes on from its last token. So the tokens of the text before are
    /// those it has alone, even where tokenising both at once would merge across the border; and the tokens of the text are those of a
    /// continuation: without BOS, and without the space that SentencePiece puts in front of every text. Mostly both views agree, and the
    /// tokens of the whole simply begin with those of the part.</remarks>
    private IReadOnlyList<int> Continue(string before, string text)
    {
        if (before.Length == 0 || text.Length == 0)
        {
            return text.Length == 0 ? [] : _tokenizer.Encode(text, addSpecialTokens: false);
        }

        var start = _tokenizer.Encode(before, addSpecialTokens: false);
        var whole = _tokenizer.Encode(before + text, addSpecialTokens: false);
        if (whole.Take(start.Count).SequenceEqual(start))
        {
            return [.. whole.Skip(start.Count)];
        }

        var wanted = _tokenizer.Decode(whole, skipSpecialTokens: false);
        bool Continues(IReadOnlyList<int> ids) => _tokenizer.Decode(start.Concat(ids), skipSpecialTokens: false) == wanted;

        var alone = _tokenizer.Encode(text, addSpecialTokens: false);
        if (Continues(alone))
        {
            return alone;
        }

        foreach (var anchor in Anchors)
        {
            var anchorIds = _tokenizer.Encode(anchor, addSpecialTokens: false);
            var anchored = _tokenizer.Encode(anchor + text, addSpecialTokens: false);
            if (anchored.Take(anchorIds.Count).SequenceEqual(anchorIds) && Continues([.. anchored.Skip(anchorIds.Count)]))
            {
                return [.. anchored.Skip(anchorIds.Count)];
            }
        }

        // Tokenizers that rewrite text (lower case, for one) do not give it back; their own view of the text is the best there is.
        return alone;
    }

    /// <summary>The tokens that the tokenizer puts before a text; none where its files ask for none, even if it knows a BOS token.</summary>
    private static IReadOnlyList<int> PrefixOf(Tokenizer tokenizer)
    {
        var bare = tokenizer.Encode("a", addSpecialTokens: false);
        var full = tokenizer.Encode("a", addSpecialTokens: true);
        for (var start = 0; start + bare.Count <= full.Count; start++)
        {
            if (full.Skip(start).Take(bare.Count).SequenceEqual(bare))
            {
                return [.. full.Take(start)];
            }
        }

        return [];
    }
}
