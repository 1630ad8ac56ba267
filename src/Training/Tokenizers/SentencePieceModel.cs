namespace TrainingService.Training.Tokenizers;

/// <summary>Builds the pipeline of a SentencePiece model.</summary>
internal static class SentencePieceModel
{
    private const int LongestPiece = 1000;
    private const long MostCuts = 1_000_000_000;   // a piece of n characters is looked up in n parts of up to n characters

    /// <param name="onlyFirst">Whether the space put before a text goes only where the input begins, not behind special tokens too.</param>
    /// <param name="dummyPrefix">Overrides the model's own wish for that space.</param>
    public static TokenizerPipeline Create(SentencePieceFile file, bool onlyFirst, bool? dummyPrefix)
    {
        if (file.ModelType is not (1 or 2))
        {
            throw Unsupported($"model type {file.ModelType}");
        }

        CheckLengths(file);
        if (file.WhitespaceAsSuffix || !file.EscapeWhitespaces)
        {
            throw Unsupported(file.WhitespaceAsSuffix ? "treat_whitespace_as_suffix" : "escape_whitespaces = false");
        }

        var vocabulary = new Dictionary<string, int>(StringComparer.Ordinal);
        var added = new List<AddedToken>();
        for (var id = 0; id < file.Pieces.Count; id++)
        {
            var piece = file.Pieces[id];
            vocabulary.TryAdd(piece.Text, id);
            if (piece.Type is SentencePieceType.Control or SentencePieceType.Unknown or SentencePieceType.UserDefined)
            {
                added.Add(new AddedToken(id, piece.Text, Special: piece.Type != SentencePieceType.UserDefined));
            }
        }

        var unknown = file.Pieces.FindIndex(piece => piece.Type == SentencePieceType.Unknown);
        var bytes = file.ByteFallback ? BpeFiles.ByteIds(vocabulary) : null;
        var prefix = dummyPrefix ?? file.AddDummyPrefix;
        return new TokenizerPipeline
        {
            Model = file.ModelType == 2
                ? Bpe(file, vocabulary, unknown < 0 ? null : unknown, bytes)
                : new UnigramModel(file.Pieces, unknown < 0 ? null : unknown, bytes),
            Tokens = [.. file.Pieces.Select(piece => piece.Text)],
            Added = added,
            Normalizer = new SequenceNormalizer([.. Normalizers(file, prefix, onlyFirst)]),
            Decoder = new SequenceDecoder(
            [
                new ReplaceDecoder("▁", " "), new ByteFallbackDecoder(), new FuseDecoder(), new StripDecoder(' ', prefix ? 1 : 0, 0),
            ]),
        };
    }

    private static void CheckLengths(SentencePieceFile file)
    {
        var cuts = 0L;
        foreach (var (text, _, _) in file.Pieces)
        {
            cuts += (long)text.Length * text.Length;
            if (text.Length > LongestPiece || cuts > MostCuts)
            {
                throw Unsupported(text.Length > LongestPiece ? $"a piece of {text.Length} characters" : "too many long pieces");
            }
        }
    }

    private static IEnumerable<Normalizer> Normalizers(SentencePieceFile file, bool prefix, bool onlyFirst)
    {
        if (file.CharactersMap.Length > 0)
        {
            yield return new CharactersMapNormalizer(file.CharactersMap);
        }

        if (file.RemoveExtraWhitespaces)
        {
            yield return new ExtraSpaceNormalizer();
        }

        if (prefix)
        {
            yield return new PrependNormalizer("▁", onlyFirst);
        }

        yield return new ReplaceNormalizer(" ", null, "▁");
    }

    /// <summary>
    /// SentencePiece stores no merges: any two neighbours merge whose text together is a piece, the highest score first. So each
    /// way to cut a piece into two symbols is a merge, and equal scores are equal ranks.
    /// </summary>
    private static BpeModel Bpe(SentencePieceFile file, Dictionary<string, int> vocabulary, int? unknown, int[]? bytes)
    {
        var symbols = new Dictionary<string, int>(StringComparer.Ordinal);
        for (var id = 0; id < file.Pieces.Count; id++)
        {
            if (IsMergeable(file.Pieces[id].Type))
            {
                symbols.TryAdd(file.Pieces[id].Text, id);
            }
        }

        AddCharacters(file, symbols);
        var ranks = file.Pieces.Select(piece => piece.Score).Distinct().OrderDescending()
            .Select((score, rank) => (score, rank)).ToDictionary(entry => entry.score, entry => entry.rank);
        var merges = new Dictionary<long, (int Rank, int Id)>();
        var unused = new Dictionary<int, UnusedPiece>();
        var bySpan = symbols.GetAlternateLookup<ReadOnlySpan<char>>();
        var breaks = symbols.TryGetValue("▁", out var mark) && mark < file.Pieces.Count;
        for (var id = 0; id < file.Pieces.Count; id++)
        {
            var (text, score, type) = file.Pieces[id];
            if (!IsMergeable(type) || symbols[text] != id)
            {
                continue;
            }

            breaks = breaks && !BpeFiles.HasMarkInside(text);
            for (var cut = 1; cut < text.Length; cut++)
            {
                if (bySpan.TryGetValue(text.AsSpan(0, cut), out var left) && bySpan.TryGetValue(text.AsSpan(cut), out var right))
                {
                    merges[BpeModel.Pair(left, right)] = (ranks[score], id);
                    if (type == SentencePieceType.Unused)
                    {
                        unused.TryAdd(id, new UnusedPiece(left, right, cut));
                    }
                }
            }
        }

        return new BpeModel(
            vocabulary, BpeFiles.Characters(symbols), merges, unused,
            new BpeOptions(unknown, FuseUnknown: true, bytes, WholeWords: false, breaks ? '▁' : null));
    }

    /// <summary>Characters inside pieces that are no piece themselves get symbols beyond the vocabulary: they may merge, not come out.</summary>
    private static void AddCharacters(SentencePieceFile file, Dictionary<string, int> symbols)
    {
        var next = file.Pieces.Count;
        foreach (var piece in file.Pieces.Where(piece => IsMergeable(piece.Type)))
        {
            foreach (var rune in piece.Text.EnumerateRunes())
            {
                if (symbols.TryAdd(rune.ToString(), next))
                {
                    next++;
                }
            }
        }
    }

    private static bool IsMergeable(SentencePieceType type) =>
        type is SentencePieceType.Normal or SentencePieceType.UserDefined or SentencePieceType.Unused;

    private static TrainingException Unsupported(string what) => TrainingException.InvalidData(
        $"tokenizer.model uses {what}, which is not supported; supported are SentencePiece BPE and unigram models.", "tokenizer.model");
}
