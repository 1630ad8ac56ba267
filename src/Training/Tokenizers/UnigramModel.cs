using System.Text;

namespace TrainingService.Training.Tokenizers;

/// <summary>SentencePiece's unigram model: the cut into pieces whose scores (log-probabilities) sum highest.</summary>
/// <remarks>Kudo 2018, arXiv:1804.10959, §3.2. Found by Viterbi's algorithm, linear in the text's length.</remarks>
internal sealed class UnigramModel : SubwordModel
{
    private const float UnknownPenalty = 10;   // below the worst piece, as SentencePiece has it

    private readonly Dictionary<(int Node, char Next), int> _edges = [];
    private readonly List<(int Id, float Score)> _ends = [(-1, 0)];
    private readonly float _unknownScore;
    private readonly int? _unknownId;
    private readonly int[]? _byteIds;

    public UnigramModel(IReadOnlyList<SentencePiece> pieces, int? unknownId, int[]? byteIds)
    {
        _unknownId = unknownId;
        _byteIds = byteIds;
        _unknownScore = pieces.Where(piece => piece.Type == SentencePieceType.Normal).Select(piece => piece.Score).DefaultIfEmpty(0).Min()
            - UnknownPenalty;
        for (var id = 0; id < pieces.Count; id++)
        {
            if (pieces[id].Type == SentencePieceType.Normal)
            {
                Add(pieces[id].Text, id, pieces[id].Score);
            }
        }
    }

    public override void Encode(ReadOnlySpan<char> word, List<Piece> pieces)
    {
        var best = new (int Start, int Id, float Score)[word.Length + 1];
        Array.Fill(best, (-1, -1, 0));
        for (var start = 0; start < word.Length;)
        {
            Rune.DecodeFromUtf16(word[start..], out _, out var size);
            var score = best[start].Score;
            var node = 0;
            var covered = false;
            for (var i = start; i < word.Length && _edges.TryGetValue((node, word[i]), out node); i++)
            {
                var (id, own) = _ends[node];
                if (id >= 0)
                {
                    covered |= i + 1 - start == size;
                    Offer(ref best[i + 1], start, id, score + own);
                }
            }

            if (!covered)
            {
                Offer(ref best[start + size], start, -1, score + _unknownScore);
            }

            start += size;
        }

        var path = new List<Piece>();
        for (var end = word.Length; end > 0; end = best[end].Start)
        {
            path.Add(new Piece(best[end].Id, best[end].Start, end - best[end].Start));
        }

        path.Reverse();
        Resolve(word, path, pieces);
    }

    private static void Offer(ref (int Start, int Id, float Score) best, int start, int id, float score)
    {
        if (best.Start < 0 || score > best.Score)
        {
            best = (start, id, score);
        }
    }

    /// <summary>Unknown characters become bytes, or one unknown token per run of them.</summary>
    private void Resolve(ReadOnlySpan<char> word, List<Piece> path, List<Piece> pieces)
    {
        Span<byte> bytes = stackalloc byte[4];
        var unknownBefore = false;
        foreach (var piece in path)
        {
            if (piece.Id >= 0)
            {
                pieces.Add(piece);
            }
            else if (_byteIds is not null)
            {
                Rune.DecodeFromUtf16(word[piece.Start..], out var rune, out _);
                var count = rune.EncodeToUtf8(bytes);
                for (var i = 0; i < count; i++)
                {
                    pieces.Add(piece with { Id = _byteIds[bytes[i]] });
                }
            }
            else if (unknownBefore)
            {
                pieces[^1] = pieces[^1] with { Length = piece.Start + piece.Length - pieces[^1].Start };
            }
            else if (_unknownId is { } unknown)
            {
                pieces.Add(piece with { Id = unknown });
            }

            unknownBefore = piece.Id < 0 && _byteIds is null && _unknownId is not null;
        }
    }

    private void Add(string text, int id, float score)
    {
        var node = 0;
        foreach (var character in text)
        {
            if (!_edges.TryGetValue((node, character), out var next))
            {
                next = _ends.Count;
                _ends.Add((-1, 0));
                _edges.Add((node, character), next);
            }

            node = next;
        }

        if (node != 0 && _ends[node].Id < 0)
        {
            _ends[node] = (id, score);
        }
    }
}
