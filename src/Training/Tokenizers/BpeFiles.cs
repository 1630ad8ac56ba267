using System.Globalization;
using System.Text;
using System.Text.Json;

namespace TrainingService.Training.Tokenizers;

/// <summary>Builds byte-pair models from the vocabulary and merges that files hold.</summary>
internal static class BpeFiles
{
    /// <summary>The <c>vocab</c> of a model: spelling to id.</summary>
    public static Dictionary<string, int> Vocabulary(JsonElement model, string param)
    {
        var type = TokenizerJson.Text(model, "type");
        if (type is not (null or "BPE"))
        {
            throw TokenizerJson.Unsupported("model", type);
        }

        return TokenizerJson.Member(model, "vocab") is { ValueKind: JsonValueKind.Object } vocabulary
            ? ReadVocabulary(vocabulary, param)
            : throw TokenizerJson.Unsupported("model", type ?? "without a vocabulary of spellings and ids");
    }

    public static Dictionary<string, int> ReadVocabulary(JsonElement json, string param)
    {
        var vocabulary = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var entry in json.EnumerateObject())
        {
            vocabulary[entry.Name] = entry.Value.ValueKind == JsonValueKind.Number && entry.Value.TryGetInt32(out var id) && id >= 0
                ? id
                : throw TrainingException.InvalidData($"The vocabulary's id of '{entry.Name}' is no whole number from 0 on.", param);
        }

        return vocabulary;
    }

    /// <summary>The model of a <c>tokenizer.json</c>.</summary>
    public static BpeModel Model(JsonElement model, Dictionary<string, int> vocabulary)
    {
        RefuseText(model, "continuing_subword_prefix");
        RefuseText(model, "end_of_word_suffix");
        if (TokenizerJson.Member(model, "dropout") is { ValueKind: JsonValueKind.Number } dropout && dropout.GetDouble() != 0)
        {
            throw TokenizerJson.Unsupported("model.dropout", dropout.GetRawText());
        }

        int? unknown = TokenizerJson.Text(model, "unk_token") is { } name && vocabulary.TryGetValue(name, out var id) ? id : null;
        var options = new BpeOptions(
            unknown,
            TokenizerJson.Flag(model, "fuse_unk"),
            TokenizerJson.Flag(model, "byte_fallback") ? ByteIds(vocabulary) : null,
            TokenizerJson.Flag(model, "ignore_merges"),
            BreakBefore: null);
        return Create(vocabulary, [.. TokenizerJson.Items(model, "merges").Select(Merge)], options);
    }

    /// <summary>A model whose merges stand in order of their rank.</summary>
    public static BpeModel Create(
        Dictionary<string, int> vocabulary, IReadOnlyList<(string Left, string Right)> merges, BpeOptions options)
    {
        var ranks = new Dictionary<long, (int Rank, int Id)>(merges.Count);
        var breaks = vocabulary.ContainsKey("▁") && !options.WholeWords;
        for (var rank = 0; rank < merges.Count; rank++)
        {
            var (left, right) = merges[rank];
            if (!vocabulary.TryGetValue(left, out var leftId) || !vocabulary.TryGetValue(right, out var rightId)
                || !vocabulary.TryGetValue(left + right, out var merged))
            {
                throw TrainingException.InvalidData(
                    $"The merge '{left} {right}' names a piece that is not in the vocabulary; export the tokenizer again.",
                    string.Create(CultureInfo.InvariantCulture, $"merges: {rank + 1}"));
            }

            ranks[BpeModel.Pair(leftId, rightId)] = (rank, merged);
            breaks = breaks && !HasMarkInside(left + right);
        }

        return new BpeModel(
            vocabulary, Characters(vocabulary), ranks, new Dictionary<int, UnusedPiece>(), options with { BreakBefore = breaks ? '▁' : null });
    }

    /// <summary>Whether ▁ stands behind another character: then words cannot be cut before it.</summary>
    public static bool HasMarkInside(string piece)
    {
        var end = piece.LastIndexOf('▁');
        return end > 0 && piece.AsSpan(0, end).ContainsAnyExcept('▁');
    }

    public static Dictionary<int, int> Characters(Dictionary<string, int> vocabulary)
    {
        var characters = new Dictionary<int, int>();
        foreach (var (token, id) in vocabulary)
        {
            if (token.Length is 1 or 2 && Rune.DecodeFromUtf16(token, out var rune, out var length) == System.Buffers.OperationStatus.Done
                && length == token.Length)
            {
                characters[rune.Value] = id;
            }
        }

        return characters;
    }

    /// <summary>Ids of the 256 byte pieces; null unless all are there.</summary>
    public static int[]? ByteIds(Dictionary<string, int> vocabulary)
    {
        var ids = new int[256];
        for (var i = 0; i < ids.Length; i++)
        {
            if (!vocabulary.TryGetValue(string.Create(CultureInfo.InvariantCulture, $"<0x{i:X2}>"), out ids[i]))
            {
                return null;
            }
        }

        return ids;
    }

    /// <summary>The lines of <c>merges.txt</c>.</summary>
    public static List<(string Left, string Right)> ReadMerges(IEnumerable<string> lines, string param) =>
        [.. lines.Where(line => line.Length > 0 && !line.StartsWith("#version", StringComparison.Ordinal)).Select(line => Split(line, param))];

    private static (string Left, string Right) Merge(JsonElement merge)
    {
        if (merge.ValueKind == JsonValueKind.String)
        {
            return Split(merge.GetString()!, "tokenizer.json: model.merges");
        }

        if (merge.ValueKind == JsonValueKind.Array && merge.GetArrayLength() == 2
            && merge[0].ValueKind == JsonValueKind.String && merge[1].ValueKind == JsonValueKind.String)
        {
            return (merge[0].GetString()!, merge[1].GetString()!);
        }

        throw TokenizerJson.Broken($"has the merge {merge.GetRawText()}, which is no pair", "model.merges");
    }

    private static (string Left, string Right) Split(string merge, string param)
    {
        var space = merge.IndexOf(' ', StringComparison.Ordinal);
        return space > 0 && space < merge.Length - 1 && merge.IndexOf(' ', space + 1) < 0
            ? (merge[..space], merge[(space + 1)..])
            : throw TrainingException.InvalidData($"The merge '{merge}' is not two pieces with a space between them.", param);
    }

    private static void RefuseText(JsonElement model, string name)
    {
        if (TokenizerJson.Text(model, name) is { Length: > 0 } value)
        {
            throw TokenizerJson.Unsupported($"model.{name}", value);
        }
    }
}
