using System.Text.Json;

namespace TrainingService.Training.Tokenizers;

/// <summary>Reads which tokens <c>tokenizer.json</c> puts around a text.</summary>
internal static class PostProcessing
{
    public static (IReadOnlyList<int> Before, IReadOnlyList<int> Behind) Read(JsonElement json, IReadOnlyList<string?> tokens)
    {
        switch (TokenizerJson.Text(json, "type"))
        {
            case "ByteLevel":      // trims offsets only; ours keep the space
                return ([], []);
            case "TemplateProcessing":
                return Template(json, tokens);
            case "RobertaProcessing" or "BertProcessing":
                return ([Pair(json, "cls")], [Pair(json, "sep")]);
            case "Sequence":
                var parts = TokenizerJson.Items(json, "processors").Select(item => Read(item, tokens)).ToList();
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
            ? TokenizerJson.Items(entry, "ids").Select(id => id.TryGetInt32(out var number) ? number : -1).ToList()
            : [];
        return ids.Count > 0 && ids.TrueForAll(id => id >= 0 && id < tokens.Count)
            ? ids
            : throw TokenizerJson.Broken($"has no known id for the special token '{name}'", "post_processor.special_tokens");
    }

    private static int Pair(JsonElement json, string name) =>
        TokenizerJson.Items(json, name).Skip(1).FirstOrDefault() is { ValueKind: JsonValueKind.Number } id && id.TryGetInt32(out var number)
            ? number
            : throw TokenizerJson.Broken($"has no id for '{name}'", "post_processor");
}
