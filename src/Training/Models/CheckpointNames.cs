using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Models;

/// <summary>Matches what a model needs with what a checkpoint holds. Loads no libtorch.</summary>
internal static class CheckpointNames
{
    private const string Prefix = "model.";
    public const string Embedding = "model.embed_tokens.weight";
    public const string HeadName = "lm_head.weight";

    /// <summary>For each weight of the model that a checkpoint has, its name there.</summary>
    /// <remarks>
    /// Some checkpoints were saved from the inner model and lack the prefix <c>model.</c> everywhere. Where the head is tied, either name, or
    /// both, may be stored. A head that scores sequences may be absent as a whole: it is new then.
    /// </remarks>
    /// <exception cref="TrainingException">Missing or surplus tensors, or one with another shape or number format.</exception>
    public static IReadOnlyDictionary<string, string> Match(ModelConfig config, CheckpointFolder checkpoint)
    {
        var stored = checkpoint.Entries;
        var lacksPrefix = !stored.Keys.Any(name => name.StartsWith(Prefix, StringComparison.Ordinal));
        string StoredName(string name) => lacksPrefix && name.StartsWith(Prefix, StringComparison.Ordinal) ? name[Prefix.Length..] : name;

        var names = config.Weights.ToDictionary(weight => weight.Name, weight => StoredName(weight.Name));
        if (config.TiesHead && !stored.ContainsKey(names[Embedding]))
        {
            names[Embedding] = HeadName;
        }

        if (config.Score is not null && !stored.Keys.Any(ScoreHead.Owns))
        {
            config.Weights.Select(weight => weight.Name).Where(ScoreHead.Owns).ToList().ForEach(name => names.Remove(name));   // a new head
        }

        var missing = names.Values.Where(name => !stored.ContainsKey(name)).ToArray();
        var wanted = names.Values.ToHashSet(StringComparer.Ordinal);
        var surplus = stored.Keys
            .Where(name => !wanted.Contains(name) && !IsBuffer(name) && !((config.TiesHead || !config.PredictsTokens) && name == HeadName)).ToArray();
        if (missing.Length + surplus.Length > 0)
        {
            throw TrainingException.InvalidData(
                $"The checkpoint does not match config.json ({config.Architecture}, {config.LayerCount} layers): "
                + string.Join(", ", new[] { List("missing", missing), List("surplus", surplus) }.Where(part => part.Length > 0))
                + (missing.Contains(HeadName)
                    ? "; set tie_word_embeddings to true if the head is the embedding."
                    : "; take config.json and weights from one model."),
                missing.Concat(surplus).First());
        }

        foreach (var weight in config.Weights.Where(weight => names.ContainsKey(weight.Name)))
        {
            CheckEntry(weight, stored[names[weight.Name]]);
        }

        return names;
    }

    private static void CheckEntry(WeightShape weight, SafeTensorEntry entry)
    {
        if (!entry.Shape.SequenceEqual(weight.Shape))
        {
            throw TrainingException.InvalidData(
                $"Tensor {entry.Name} has the shape [{string.Join(", ", entry.Shape)}], and config.json means "
                + $"[{string.Join(", ", weight.Shape)}]; take config.json and weights from one model.", entry.Name);
        }

        if (!entry.DType.IsFloat())
        {
            throw TrainingException.InvalidData(
                $"Tensor {entry.Name} holds {entry.DType.WireName()}, as quantised models do; use the model in F32, F16 or BF16.", entry.Name);
        }
    }

    /// <summary>Tables that older versions saved and that follow from the configuration.</summary>
    private static bool IsBuffer(string name) => name.EndsWith("rotary_emb.inv_freq", StringComparison.Ordinal);

    private static string List(string title, string[] names)
    {
        const int Shown = 5;
        return names.Length == 0 ? "" : $"{names.Length} {title} ({string.Join(", ", names.Order(StringComparer.Ordinal).Take(Shown))}"
            + (names.Length > Shown ? ", …)" : ")");
    }
}
