using System.Text.RegularExpressions;

namespace TrainingService.Infrastructure.Hub;

/// <summary>Chooses the files of a repository that training needs. A pickle is not among them.</summary>
public static partial class HubSelection
{
    public const string Config = "config.json";
    public const string SingleFile = "model.safetensors";
    public const string ShardIndex = "model.safetensors.index.json";

    private static readonly string[] Companions =
    [
        Config, ShardIndex, "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json",
    ];

    private static readonly string[] Pickles = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];

    public static bool IsWeights(HubFile file) => file.Path.EndsWith(".safetensors", StringComparison.Ordinal);

    /// <summary>The files that matter, in the order of their names; which shards count is for the index to say.</summary>
    /// <exception cref="HubException">The repository holds no model that can be trained, or more than is allowed.</exception>
    internal static List<HubFile> Of(IReadOnlyList<HubFile> listed, HubModelId id, HubOptions options)
    {
        var names = listed.Select(file => file.Path).ToHashSet(StringComparer.Ordinal);
        var weights = WeightsOf(names);
        var kept = listed.Where(file => Companions.Contains(file.Path) || weights.Contains(file.Path)).OrderBy(file => file.Path, StringComparer.Ordinal).ToList();
        if (kept.FirstOrDefault(file => listed.Count(other => string.Equals(other.Path, file.Path, StringComparison.OrdinalIgnoreCase)) > 1) is { } twice)
        {
            throw HubListing.Broken($"it lists {HubListing.Quote(twice.Path)} twice, or in two spellings");
        }

        if (!names.Contains(Config))
        {
            throw Unusable(id, names.Contains("adapter_config.json")
                ? "holds an adapter, not a base model; give the model that it was trained on"
                : "has no config.json in its first folder; give a model in Hugging Face layout");
        }

        if (weights.Count == 0)
        {
            throw WithoutWeights(id, names);
        }

        foreach (var file in kept)
        {
            var most = IsWeights(file) ? options.LargestFileBytes : options.LargestSmallFileBytes;
            if (file.Bytes > most)
            {
                throw new HubException(HubFault.TooLarge, $"{file.Path} of '{id.Name}' has {file.Bytes} bytes; this service takes {most} at most (setting "
                    + $"Hub:{(IsWeights(file) ? nameof(options.LargestFileBytes) : nameof(options.LargestSmallFileBytes))}).");
            }
        }

        return kept;
    }

    /// <summary>Keeps of the weights what the index names, and refuses more than is allowed in all.</summary>
    /// <param name="shards">File names from the index; null: there is none, or it does not count.</param>
    public static HubRepository WithShards(HubRepository repository, IReadOnlySet<string>? shards, HubOptions options)
    {
        var files = repository.Files.Where(file => !IsWeights(file) || shards is null || shards.Contains(file.Path)).ToList();
        if (shards?.FirstOrDefault(shard => !files.Any(file => file.Path == shard)) is { } missing)
        {
            throw Unusable(repository.Id, $"lacks {HubListing.Quote(missing)}, which {ShardIndex} names");
        }

        var total = files.Sum(file => (decimal)file.Bytes);
        return total <= options.LargestModelBytes
            ? repository with { Files = files }
            : throw new HubException(HubFault.TooLarge, $"'{repository.Id.Name}' has {total} bytes; this service takes {options.LargestModelBytes} at most (setting "
                + $"Hub:{nameof(options.LargestModelBytes)}).");
    }

    /// <summary>One file, or all shards when there is an index; other copies of the weights stay where they are.</summary>
    private static HashSet<string> WeightsOf(HashSet<string> names)
    {
        if (names.Contains(SingleFile))
        {
            return [SingleFile];
        }

        var all = names.Where(name => WeightsPattern().IsMatch(name) && name != "adapter_model.safetensors").ToHashSet(StringComparer.Ordinal);
        return names.Contains(ShardIndex) || all.Count == 1 ? all : [];
    }

    private static HubException WithoutWeights(HubModelId id, HashSet<string> names)
    {
        var pickle = names.Where(name => Pickles.Contains(Path.GetExtension(name), StringComparer.OrdinalIgnoreCase)).Order(StringComparer.Ordinal).FirstOrDefault();
        return Unusable(id, pickle is null
            ? $"has neither {SingleFile} nor {ShardIndex} in its first folder"
            : $"has its weights as a Python pickle alone ({HubListing.Quote(pickle)}), which can run code when it is opened, so it is refused; convert it once with "
                + "Python: AutoModelForCausalLM.from_pretrained(id).save_pretrained(folder, safe_serialization=True), and upload the folder as an archive");
    }

    private static HubException Unusable(HubModelId id, string why) => new(HubFault.Invalid, $"'{id.Name}' {why}.");

    [GeneratedRegex(@"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.safetensors\z")]
    private static partial Regex WeightsPattern();
}
