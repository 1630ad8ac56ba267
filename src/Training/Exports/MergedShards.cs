using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Exports;

/// <summary>Writes a model over the layout of the folder that it came from: the same shards, names and number formats.</summary>
internal static class MergedShards
{
    /// <param name="model">Its own weights, float32.</param>
    /// <param name="source">Folder that it was loaded from.</param>
    public static void Write(CausalLm model, string source, string target)
    {
        CopyOtherFiles(source, target);
        var weights = model.NamedWeights().ToDictionary(weight => weight.Name, weight => (Tensor)weight.Parameter);
        using var checkpoint = CheckpointFolder.Open(source);
        var stored = CheckpointNames.Match(model.Config, checkpoint).ToDictionary(pair => pair.Value, pair => weights[pair.Key]);
        var places = new Dictionary<string, (string File, long Bytes)>(StringComparer.Ordinal);
        var head = new Queue<string>(weights.Keys.Where(name => ScoreHead.Owns(name) && !stored.ContainsKey(name)));
        foreach (var path in Directory.EnumerateFiles(source, "*.safetensors").Order(StringComparer.Ordinal))
        {
            using var scope = NewDisposeScope();   // one shard in memory at a time, besides the model
            using var shard = SafeTensorsFile.Open(path);
            if (!shard.Entries.Keys.All(checkpoint.Entries.ContainsKey))
            {
                continue;   // a second copy under other names, or an adapter: not what the model was loaded from
            }

            // Without an output head for tokens its weight has no place; a new score head, float32, joins the first shard.
            var tensors = shard.Entries.Values
                .Where(entry => model.Config.PredictsTokens || entry.Name != CheckpointNames.HeadName || stored.ContainsKey(entry.Name))
                .Select(entry => (entry.Name, Tensor: Value(entry, shard, stored, weights)))
                .ToList();
            while (head.TryDequeue(out var name))
            {
                tensors.Add((name, weights[name].cpu()));
            }

            SafeTensorsWriter.Write(Path.Combine(target, Path.GetFileName(path)), tensors, shard.Metadata.Count > 0 ? shard.Metadata : null);
            tensors.ForEach(tensor => places.Add(tensor.Name, (Path.GetFileName(path), tensor.Tensor.numel() * tensor.Tensor.element_size())));
        }

        if (model.Config.Score is not null)
        {
            HuggingFaceFolder.WriteScoring(model, target, places);
        }
    }

    private static Tensor Value(
        SafeTensorEntry entry, SafeTensorsFile shard, Dictionary<string, Tensor> stored, Dictionary<string, Tensor> weights)
    {
        if (stored.TryGetValue(entry.Name, out var weight))
        {
            return weight.to_type(entry.DType.ToScalarType()).cpu();
        }

        // A tied head that is stored a second time follows the embedding; anything else is a table that training does not touch.
        return entry.Name.EndsWith(LayerPlan.OutputHead + ".weight", StringComparison.Ordinal)
            && weights.TryGetValue("model.embed_tokens.weight", out var embedding)
            ? embedding.to_type(entry.DType.ToScalarType()).cpu()
            : shard.Read(entry.Name);
    }

    // Tokenizer, templates, generation settings, licence: all that is not weights. Pickles are left behind: they hold the old weights.
    private static void CopyOtherFiles(string source, string target)
    {
        string[] left = [".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf"];
        foreach (var path in Directory.EnumerateFiles(source).Where(path => !left.Contains(Path.GetExtension(path))))
        {
            File.Copy(path, Path.Combine(target, Path.GetFileName(path)), overwrite: true);
        }
    }
}
