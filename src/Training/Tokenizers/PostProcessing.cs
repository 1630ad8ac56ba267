using System.Text.Json;

namespace TrainingService.Training.Tokenizers;

/// <summary>Reads which tokens <c>tokenizer.json</c> puts around a text.</summary>
internal static class PostProcessing
{
    private const int MostIds = 64;

    public static (IReadOnlyList<int> Before, IReadOnlyList<int> Behind) Read(JsonElement json, IReadOnlyList<string?> tokens)
    {
        var (before, behind) = ReadStep(json, tokens);
        return before.Count + behind.Count <= MostIds
            ? (before, behind)
            : throw TokenizerJson.Broken($"puts {before.Count + behind.Count} tokens around each text, more than {MostIds}", "post_processor");
    }

    private static (IReadOnlyList<int> Before, IReadOnlyList<int> Behind) ReadStep(JsonElement json, IReadOnlyList<string?> tokens)
    {
        switch (TokenizerJson.Text(json, "type"))
        {
            case "ByteLevel":      // trims offsets only; ours keep the space
                return ([], []);
            case "TemplateProcessing":
                return Template(json, tokens);
            case "RobertaProcessing" or "BertProcessing":
                return ([Pair(json, "cls", tokens.Count)], [Pair(json, "sep", tokens.Count)]);
            case "Sequence":
                var parts = TokenizerJson.Items(json, "processors").Select(item => ReadStep(item, tokens)).ToList();
                // Each step wraps what the one before it gave.
                return ([.. parts.AsEnumerable().Reverse().SelectMany(part => part.Before)], [.. parts.SelectMany(part => part.Behind)]);
            case var other:
                throw TokenizerJson.Unsupported("post_processor", other);
        }
    }

    private static (IReadOnlyList<int> Before, IReadOnlyList<int> Behind) Template(JsonElement json, IReadOnlyList<string?> tokens)
    {
        var before = new List<int>();
        var behind = new List<int>();
        var target = before;
        foreach (var item in TokenizerJson.Items(json, "single"))
        {
            if (TokenizerJson.Member(item, "SpecialToken") is { } special)
            {
                target.AddRange(Ids(json, TokenizerJson.Text(special, "id") ?? "", tokens));
            }
            else if (TokenizerJson.Member(item, "Sequence") is not null)
            {
                target = behind;
            }
            else
            {
                throw TokenizerJson.Unsupported("post_processor.single", item.GetRawText());
            }
        }

        return (before, behind);
    }

    private static List<int> Ids(JsonElement json, string name, IReadOnlyList<string?> tokens)
    {
        var ids = TokenizerJson.Member(json, "special_tokens") is { } all && TokenizerJson.Member(all, name) is { } entry
            ? TokenizerJson.Items(entry, "ids").Select(id => id.ValueKind == JsonValueKind.Number && id.TryGetInt32(out var number) ? number : -1).ToList()
            : [];
        return ids.Count > 0 && ids.TrueForAll(id => id >= 0 && id < tokens.Count)
            ? ids
            : throw TokenizerJson.Broken($"has no known id for the special token '{name}'", "post_processor.special_tokens");
    }

    private static int Pair(JsonElement json, string name, int count) =>
        TokenizerJson.Items(json, name).Skip(1).FirstOrDefault() is { ValueKind: JsonValueKind.Number } id && id.TryGetInt32(out var number) && number >= 0 && number < count
            ? number
            : throw TokenizerJson.Broken($"has no known id for '{name}'", "post_processor");
}
