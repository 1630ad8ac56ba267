using System.Buffers;
using System.Text;

namespace TrainingService.Training.Tokenizers;

/// <summary>A token that is recognised in the text before the model sees it.</summary>
/// <param name="Special">Left out of decoded text on request.</param>
/// <param name="SingleWord">Recognised only where no word character stands beside it.</param>
/// <param name="LeftStrip">Takes the white space before it.</param>
/// <param name="RightStrip">Takes the white space behind it.</param>
/// <param name="Normalized">Looked for in the normalised text instead of the input.</param>
internal sealed record AddedToken(
    int Id,
    string Content,
    bool Special,
    bool SingleWord = false,
    bool LeftStrip = false,
    bool RightStrip = false,
    bool Normalized = false);

/// <summary>Finds added tokens in a text: the leftmost first, and of those the longest.</summary>
internal sealed class AddedTokenMatcher
{
    private const int LongestText = 1000;   // at each place of a text this many characters may have to be compared

    private readonly Dictionary<(int Node, char Next), int> _edges = [];
    private readonly List<AddedToken?> _ends = [null];
    private readonly SearchValues<char> _first;

    /// <param name="tokens">Tokens with the text under which each is found.</param>
    public AddedTokenMatcher(IEnumerable<(AddedToken Token, string Text)> tokens)
    {
        var first = new HashSet<char>();
        foreach (var (token, text) in tokens.Where(entry => entry.Text.Length > 0))
        {
            if (text.Length > LongestText)
            {
                throw TrainingException.InvalidData(
                    $"The added token with the id {token.Id} has {text.Length} characters, and at most {LongestText} are read; export the tokenizer again.",
                    "tokenizer.json: added_tokens");
            }

            first.Add(text[0]);
            var node = 0;
            foreach (var character in text)
            {
                if (!_edges.TryGetValue((node, character), out var next))
                {
                    next = _ends.Count;
                    _ends.Add(null);
                    _edges.Add((node, character), next);
                }

                node = next;
            }

            _ends[node] ??= token;
        }

        _first = SearchValues.Create([.. first]);
    }

    /// <summary>The text in parts: those with a token are that token, the others go on to the model. Empty parts are left out.</summary>
    public IEnumerable<(int Start, int Length, AddedToken? Token)> Split(string text)
    {
        var done = 0;
        var position = 0;
        while (position < text.Length)
        {
            var candidate = text.AsSpan(position).IndexOfAny(_first);
            if (candidate < 0)
            {
                break;
            }

            position += candidate;
            var (token, end) = Longest(text, position);
            if (token is null)
            {
                position++;
                continue;
            }

            if (token.SingleWord && (IsWordBefore(text, position) || IsWordAt(text, end)))
            {
                position = end;
                continue;
            }

            var start = position;
            while (token.LeftStrip && start > done && char.IsWhiteSpace(text[start - 1]))
            {
                start--;
            }

            while (token.RightStrip && end < text.Length && char.IsWhiteSpace(text[end]))
            {
                end++;
            }

            if (start > done)
            {
                yield return (done, start - done, null);
            }

            yield return (start, end - start, token);
            done = position = end;
        }

        if (done < text.Length)
        {
            yield return (done, text.Length - done, null);
        }
    }

    private (AddedToken? Token, int End) Longest(string text, int start)
    {
        AddedToken? found = null;
        var end = start;
        var node = 0;
        for (var i = start; i < text.Length && _edges.TryGetValue((node, text[i]), out node); i++)
        {
            if (_ends[node] is { } token)
            {
                found = token;
                end = i + 1;
            }
        }

        return (found, end);
    }

    private static bool IsWordBefore(string text, int index) =>
        Rune.DecodeLastFromUtf16(text.AsSpan(0, index), out var rune, out _) == OperationStatus.Done && IsWord(rune);

    private static bool IsWordAt(string text, int index) =>
        Rune.DecodeFromUtf16(text.AsSpan(index), out var rune, out _) == OperationStatus.Done && IsWord(rune);

    private static bool IsWord(Rune rune) => UnicodeClasses.IsWordCharacter(rune);
}
