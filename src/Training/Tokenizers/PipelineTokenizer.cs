namespace TrainingService.Training.Tokenizers;

/// <summary>The steps of a tokenizer, as its files describe them.</summary>
internal sealed record TokenizerPipeline
{
    public required SubwordModel Model { get; init; }

    /// <summary>Spelling of every id, added tokens included; null where an id is not used.</summary>
    public required IReadOnlyList<string?> Tokens { get; init; }

    public IReadOnlyList<AddedToken> Added { get; init; } = [];

    public Normalizer? Normalizer { get; init; }

    public PreTokenizer? PreTokenizer { get; init; }

    public TokenDecoder? Decoder { get; init; }

    /// <summary>Ids put before a text.</summary>
    public IReadOnlyList<int> Before { get; init; } = [];

    /// <summary>Ids put behind a text.</summary>
    public IReadOnlyList<int> Behind { get; init; } = [];
}

/// <summary>A tokenizer in four steps: added tokens are cut out, the rest is normalised, cut into words, and split by the model.</summary>
internal sealed class PipelineTokenizer : Tokenizer
{
    private readonly TokenizerPipeline _pipeline;
    private readonly AddedTokenMatcher _inInput;
    private readonly AddedTokenMatcher? _inNormalized;
    private readonly HashSet<int> _special;

    public PipelineTokenizer(TokenizerPipeline pipeline, int? bosId, int? eosId, int? padId, ChatTemplate? chatTemplate)
    {
        _pipeline = pipeline;
        BosId = bosId;
        EosId = eosId;
        PadId = padId;
        ChatTemplate = chatTemplate;
        _special = [.. pipeline.Added.Where(token => token.Special).Select(token => token.Id)];
        _inInput = new(pipeline.Added.Where(token => !token.Normalized).Select(token => (token, token.Content)));
        var normalized = pipeline.Added.Where(token => token.Normalized).Select(token => (token, Normalize(token.Content))).ToList();
        _inNormalized = normalized.Count == 0 ? null : new(normalized);
    }

    public override int VocabularySize => _pipeline.Tokens.Count;

    public override int? BosId { get; }

    public override int? EosId { get; }

    public override int? PadId { get; }

    public override ChatTemplate? ChatTemplate { get; }

    public override IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true)
    {
        var ids = new List<int>((text.Length / 3) + 2);
        Run(text, addSpecialTokens, (id, _, _) => ids.Add(id));
        return ids;
    }

    public override (IReadOnlyList<int> Ids, IReadOnlyList<(int Start, int Length)> Offsets) EncodeWithOffsets(
        string text, bool addSpecialTokens = true)
    {
        var ids = new List<int>((text.Length / 3) + 2);
        var offsets = new List<(int Start, int Length)>(ids.Capacity);
        Run(text, addSpecialTokens, (id, start, end) =>
        {
            ids.Add(id);
            offsets.Add((start, end - start));
        });
        return (ids, offsets);
    }

    public override string Decode(IEnumerable<int> ids, bool skipSpecialTokens = true)
    {
        var tokens = new List<string>();
        foreach (var id in ids)
        {
            if (id >= 0 && id < _pipeline.Tokens.Count && _pipeline.Tokens[id] is { } token
                && !(skipSpecialTokens && _special.Contains(id)))
            {
                tokens.Add(token);
            }
        }

        return _pipeline.Decoder is null ? string.Join(' ', tokens) : string.Concat(_pipeline.Decoder.Apply(tokens));
    }

    private void Run(string text, bool addSpecialTokens, Action<int, int, int> add)
    {
        text = WellFormed(text);
        if (addSpecialTokens)
        {
            foreach (var id in _pipeline.Before)
            {
                add(id, 0, 0);
            }
        }

        var pieces = new List<Piece>();
        foreach (var (start, length, token) in _inInput.Split(text))
        {
            if (token is not null)
            {
                add(token.Id, start, start + length);
                continue;
            }

            EncodePart(MappedText.Slice(text, start, length), pieces, add);
        }

        if (addSpecialTokens)
        {
            foreach (var id in _pipeline.Behind)
            {
                add(id, text.Length, text.Length);
            }
        }
    }

    private void EncodePart(MappedText part, List<Piece> pieces, Action<int, int, int> add)
    {
        var normalized = MappedText.CheckGrowth(part, _pipeline.Normalizer?.Apply(part) ?? part);
        if (_inNormalized is null)
        {
            EncodeWords(normalized, pieces, add);
            return;
        }

        foreach (var (start, length, token) in _inNormalized.Split(normalized.Text))
        {
            if (token is null)
            {
                EncodeWords(normalized.Part(start, length), pieces, add);
                continue;
            }

            var (sourceStart, sourceEnd) = normalized.Source(start, length);
            add(token.Id, sourceStart, sourceEnd);
        }
    }

    private void EncodeWords(MappedText text, List<Piece> pieces, Action<int, int, int> add)
    {
        var words = new Words(text, [(0, text.Text.Length)]);
        words = _pipeline.PreTokenizer?.Apply(words) ?? words;
        foreach (var (start, length) in words.Ranges)
        {
            pieces.Clear();
            _pipeline.Model.Encode(words.Text.Text.AsSpan(start, length), pieces);
            foreach (var piece in pieces)
            {
                var (sourceStart, sourceEnd) = words.Text.Source(start + piece.Start, piece.Length);
                add(piece.Id, sourceStart, sourceEnd);
            }
        }
    }

    private string Normalize(string content) =>
        _pipeline.Normalizer?.Apply(MappedText.Slice(content, 0, content.Length)).Text ?? content;

    /// <summary>Lone surrogates, which no UTF-8 can say, become U+FFFD; positions stay.</summary>
    private static string WellFormed(string text)
    {
        if (text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
        {
            return text;
        }

        var characters = text.ToCharArray();
        for (var i = 0; i < characters.Length; i++)
        {
            if (char.IsHighSurrogate(characters[i]) && i + 1 < characters.Length && char.IsLowSurrogate(characters[i + 1]))
            {
                i++;
            }
            else if (char.IsSurrogate(characters[i]))
            {
                characters[i] = '\uFFFD';
            }
        }

        return new string(characters);
    }
}
