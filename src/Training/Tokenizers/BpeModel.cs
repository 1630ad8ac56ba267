using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using System.Text;

namespace TrainingService.Training.Tokenizers;

/// <summary>One token of a word: its id and the characters of the word it stands for.</summary>
internal readonly record struct Piece(int Id, int Start, int Length);

/// <summary>Splits a text that is already normalised and cut into words into vocabulary pieces.</summary>
internal abstract class SubwordModel
{
    /// <summary>Appends the tokens of <paramref name="word"/>; their ranges are relative to it.</summary>
    public abstract void Encode(ReadOnlySpan<char> word, List<Piece> pieces);
}

/// <summary>What a byte-pair model does besides merging.</summary>
/// <param name="UnknownId">Id of a character that no piece covers; null drops it.</param>
/// <param name="FuseUnknown">Whether neighbouring unknown characters become one token.</param>
/// <param name="ByteIds">Ids of <c>&lt;0x00&gt;</c>…<c>&lt;0xFF&gt;</c> for characters outside the vocabulary; null when there are none.</param>
/// <param name="WholeWords">Whether a word that is a piece itself is taken without merging (<c>ignore_merges</c>).</param>
/// <param name="BreakBefore">
/// A character that no merge has behind another one (▁): the word is cut before it, which gives the same tokens and lets words be
/// remembered. Null when there is none.
/// </param>
internal sealed record BpeOptions(int? UnknownId, bool FuseUnknown, int[]? ByteIds, bool WholeWords, char? BreakBefore);

/// <summary>The parts of a piece that is merged on the way to longer ones but is no token itself.</summary>
internal readonly record struct UnusedPiece(int Left, int Right, int LeftLength);

/// <summary>Byte-pair encoding: the neighbouring pair of lowest rank is merged, leftmost first, until none is left.</summary>
/// <remarks>Sennrich et al. 2016, arXiv:1508.07909, §3.2. A heap of candidate pairs makes a word of n characters cost O(n log n).</remarks>
internal sealed class BpeModel : SubwordModel
{
    private const int LongestRemembered = 64;
    private const int MostRemembered = 200_000;
    private const int Gone = -1;

    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _vocabulary;
    private readonly Dictionary<long, (int Rank, int Id)> _merges;
    private readonly Dictionary<int, int> _characters;
    private readonly IReadOnlyDictionary<int, UnusedPiece> _unused;
    private readonly BpeOptions _options;
    private readonly int _firstVirtual;
    private readonly int[] _latin = new int[0x180];   // characters of byte-level vocabularies, without hashing
    private readonly ConcurrentDictionary<string, Piece[]> _words = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, Piece[]>.AlternateLookup<ReadOnlySpan<char>> _wordsBySpan;
    private int _remembered;

    /// <param name="characters">Symbol of each character (code point) that has one; symbols beyond the vocabulary only merge.</param>
    /// <param name="merges">Rank and merged symbol of each pair of symbols, keyed by <see cref="Pair"/>.</param>
    /// <param name="unused">Symbols that may not come out, with the pair they fall back into.</param>
    public BpeModel(
        Dictionary<string, int> vocabulary,
        Dictionary<int, int> characters,
        Dictionary<long, (int Rank, int Id)> merges,
        IReadOnlyDictionary<int, UnusedPiece> unused,
        BpeOptions options)
    {
        _vocabulary = vocabulary.GetAlternateLookup<ReadOnlySpan<char>>();
        _firstVirtual = vocabulary.Count == 0 ? 0 : vocabulary.Values.Max() + 1;
        _characters = characters;
        _merges = merges;
        _unused = unused;
        _options = options;
        _wordsBySpan = _words.GetAlternateLookup<ReadOnlySpan<char>>();
        for (var i = 0; i < _latin.Length; i++)
        {
            _latin[i] = characters.TryGetValue(i, out var id) ? id : -1;
        }
    }

    public static long Pair(int left, int right) => ((long)left << 32) | (uint)right;

    public override void Encode(ReadOnlySpan<char> word, List<Piece> pieces)
    {
        if (_options.BreakBefore is not { } mark)
        {
            EncodeWord(word, 0, pieces);
            return;
        }

        var start = 0;
        for (var i = 1; i <= word.Length; i++)
        {
            if (i == word.Length || (word[i] == mark && word[i - 1] != mark))
            {
                EncodeWord(word[start..i], start, pieces);
                start = i;
            }
        }
    }

    private void EncodeWord(ReadOnlySpan<char> word, int offset, List<Piece> pieces)
    {
        if (word.Length > LongestRemembered)
        {
            Append(Merge(word), offset, pieces);
            return;
        }

        if (!_wordsBySpan.TryGetValue(word, out var known))
        {
            known = Merge(word);
            if (Volatile.Read(ref _remembered) < MostRemembered && _wordsBySpan.TryAdd(word, known))
            {
                Interlocked.Increment(ref _remembered);
            }
        }

        Append(known, offset, pieces);
    }

    private static void Append(Piece[] word, int offset, List<Piece> pieces)
    {
        foreach (var piece in word)
        {
            pieces.Add(piece with { Start = piece.Start + offset });
        }
    }

    private Piece[] Merge(ReadOnlySpan<char> word)
    {
        if (_options.WholeWords && _vocabulary.TryGetValue(word, out var whole))
        {
            return [new Piece(whole, 0, word.Length)];
        }

        var symbols = CollectionsMarshal.AsSpan(Symbols(word));
        var candidates = new List<(Candidate, long)>(symbols.Length);
        for (var i = 0; i + 1 < symbols.Length; i++)
        {
            if (TryMerge(symbols, i, out var candidate, out var priority))
            {
                candidates.Add((candidate, priority));
            }
        }

        var queue = new PriorityQueue<Candidate, long>(candidates);
        while (queue.TryDequeue(out var next, out _))
        {
            ref var left = ref symbols[next.Left];
            if (left.Id != next.LeftId || left.Next < 0 || symbols[left.Next].Id != next.RightId)
            {
                continue;   // one of the two has been merged with something else since
            }

            ref var right = ref symbols[left.Next];
            left.Id = next.MergedId;
            left.Length = right.Start + right.Length - left.Start;
            left.Next = right.Next;
            right.Id = Gone;
            if (left.Next >= 0)
            {
                symbols[left.Next].Previous = next.Left;
                if (TryMerge(symbols, next.Left, out var candidate, out var priority))
                {
                    queue.Enqueue(candidate, priority);
                }
            }

            if (left.Previous >= 0 && TryMerge(symbols, left.Previous, out var before, out var beforePriority))
            {
                queue.Enqueue(before, beforePriority);
            }
        }

        var result = new List<Piece>();
        for (var i = symbols.Length == 0 ? -1 : 0; i >= 0; i = symbols[i].Next)
        {
            AddPiece(word, new Piece(symbols[i].Id, symbols[i].Start, symbols[i].Length), result);
        }

        return [.. result];
    }

    /// <summary>The merge of a symbol with its right neighbour; lower ranks come first, and of equal ones the leftmost.</summary>
    private bool TryMerge(ReadOnlySpan<Symbol> symbols, int left, out Candidate candidate, out long priority)
    {
        var (leftId, rightId) = (symbols[left].Id, symbols[symbols[left].Next].Id);
        var found = _merges.TryGetValue(Pair(leftId, rightId), out var merge);
        candidate = new Candidate(left, leftId, rightId, merge.Id);
        priority = ((long)merge.Rank << 32) | (uint)left;
        return found;
    }

    private List<Symbol> Symbols(ReadOnlySpan<char> word)
    {
        var symbols = new List<Symbol>(word.Length);
        var position = 0;
        while (position < word.Length)
        {
            Rune.DecodeFromUtf16(word[position..], out var rune, out var length);
            var id = rune.Value < _latin.Length ? _latin[rune.Value] : _characters.GetValueOrDefault(rune.Value, -1);
            if (id >= 0)
            {
                Add(symbols, id, position, length);
            }
            else if (_options.ByteIds is not null)
            {
                AddBytes(rune, position, length, (byteId, start, size) => Add(symbols, byteId, start, size));
            }
            else
            {
                AddUnknown(symbols, position, length);
            }

            position += length;
        }

        return symbols;
    }

    private void AddUnknown(List<Symbol> symbols, int start, int length)
    {
        if (_options.UnknownId is not { } unknown)
        {
            return;
        }

        if (_options.FuseUnknown && symbols.Count > 0 && symbols[^1].Id == unknown)
        {
            symbols[^1] = symbols[^1] with { Length = start + length - symbols[^1].Start };
            return;
        }

        Add(symbols, unknown, start, length);
    }

    private void AddBytes(Rune rune, int start, int length, Action<int, int, int> add)
    {
        Span<byte> bytes = stackalloc byte[4];
        var count = rune.EncodeToUtf8(bytes);
        for (var i = 0; i < count; i++)
        {
            add(_options.ByteIds![bytes[i]], start, length);
        }
    }

    private static void Add(List<Symbol> symbols, int id, int start, int length)
    {
        var index = symbols.Count;
        if (index > 0)
        {
            symbols[^1] = symbols[^1] with { Next = index };
        }

        symbols.Add(new Symbol(id, start, length, index - 1, -1));
    }

    /// <summary>Resolves a symbol that is no token: an unused piece into its parts, a character without piece into bytes or unknown.</summary>
    private void AddPiece(ReadOnlySpan<char> word, Piece piece, List<Piece> result)
    {
        if (_unused.TryGetValue(piece.Id, out var parts))
        {
            AddPiece(word, new Piece(parts.Left, piece.Start, parts.LeftLength), result);
            AddPiece(word, new Piece(parts.Right, piece.Start + parts.LeftLength, piece.Length - parts.LeftLength), result);
            return;
        }

        if (piece.Id < _firstVirtual)
        {
            result.Add(piece);
            return;
        }

        Rune.DecodeFromUtf16(word.Slice(piece.Start, piece.Length), out var rune, out _);
        if (_options.ByteIds is not null)
        {
            AddBytes(rune, piece.Start, piece.Length, (id, start, length) => result.Add(new Piece(id, start, length)));
        }
        else if (_options.UnknownId is { } unknown)
        {
            result.Add(new Piece(unknown, piece.Start, piece.Length));
        }
    }

    private record struct Symbol(int Id, int Start, int Length, int Previous, int Next);

    private readonly record struct Candidate(int Left, int LeftId, int RightId, int MergedId);
}
