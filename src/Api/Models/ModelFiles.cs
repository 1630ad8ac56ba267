using System.Security.Cryptography;
using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;

namespace TrainingService.Api.Models;

/// <summary>A model folder that can be trained: its configuration, its files, and their sum.</summary>
internal sealed record InspectedModel(string ConfigJson, IReadOnlyList<ModelFile> Files)
{
    public long Bytes => Files.Sum(file => file.Bytes);
}

/// <summary>Looks at a model folder before anybody relies on it. No tensor is read and no libtorch is loaded.</summary>
internal static class ModelFiles
{
    private const long LargestConfig = 4 << 20;

    public static readonly JsonSerializerOptions Json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    private static readonly string[] PickleEndings = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];

    /// <exception cref="TrainingException">The folder is not a model that this service trains; the message says what to change.</exception>
    public static async Task<InspectedModel> InspectAsync(string folder, CancellationToken cancellationToken)
    {
        var configPath = Path.Combine(folder, "config.json");
        if (!File.Exists(configPath))
        {
            throw TrainingException.InvalidData("The model has no config.json; give a Hugging Face model folder.", "config.json");
        }

        if (new FileInfo(configPath).Length > LargestConfig)
        {
            throw TrainingException.InvalidData("config.json is larger than 4 MiB; take it from the model's own folder again.", "config.json");
        }

        var configJson = await File.ReadAllTextAsync(configPath, cancellationToken);
        var config = ModelConfig.Parse(configJson);
        CheckWeights(folder, config);

        var files = new List<ModelFile>();
        foreach (var path in Directory.EnumerateFiles(folder).Order(StringComparer.Ordinal).Where(IsPartOfModel))
        {
            await using var stream = new FileStream(
                path, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16, FileOptions.Asynchronous | FileOptions.SequentialScan);
            var hash = await SHA256.HashDataAsync(stream, cancellationToken);
            files.Add(new ModelFile(Path.GetFileName(path), stream.Length, Convert.ToHexStringLower(hash)));
        }

        return new InspectedModel(configJson, files);
    }

    /// <summary>The files that the worker needs; a pickle is left where it is, and never opened.</summary>
    private static bool IsPartOfModel(string path) =>
        !Path.GetFileName(path).StartsWith('.')
        && !PickleEndings.Contains(Path.GetExtension(path), StringComparer.OrdinalIgnoreCase);

    private static void CheckWeights(string folder, ModelConfig config)
    {
        var shards = Directory.GetFiles(folder, "*.safetensors").Order(StringComparer.Ordinal).ToList();
        if (shards.Count == 0)
        {
            var pickle = Directory.EnumerateFiles(folder)
                .FirstOrDefault(path => PickleEndings.Contains(Path.GetExtension(path), StringComparer.OrdinalIgnoreCase));
            throw pickle is null
                ? TrainingException.InvalidData("The model has no weights; it must hold model.safetensors, or shards with an index.", "model.safetensors")
                : TrainingException.InvalidData(
                    $"{Path.GetFileName(pickle)} is a pickle, which can run code when it is opened, and is refused; convert it with "
                    + "transformers: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, safe_serialization=True).",
                    Path.GetFileName(pickle));
        }

        var found = new Dictionary<string, long[]>(StringComparer.Ordinal);
        foreach (var shard in shards)
        {
            using var file = SafeTensorsFile.Open(shard);
            foreach (var entry in file.Entries.Values)
            {
                if (!found.TryAdd(entry.Name, entry.Shape))
                {
                    throw TrainingException.InvalidData(
                        $"Tensor '{entry.Name}' is in two of the model's safetensors files; keep one of them.", Path.GetFileName(shard));
                }
            }
        }

        CheckShapes(found, config);
    }

    private static void CheckShapes(Dictionary<string, long[]> found, ModelConfig config)
    {
        foreach (var weight in config.Weights)
        {
            // Of a tied pair a checkpoint may store either.
            var name = !found.ContainsKey(weight.Name) && config.TiesHead && weight.Name == "model.embed_tokens.weight"
                ? "lm_head.weight"
                : weight.Name;
            if (!found.TryGetValue(name, out var shape))
            {
                throw TrainingException.InvalidData(
                    $"The weights lack '{weight.Name}', which {config.Architecture} with this config.json has; are all shards there?",
                    weight.Name);
            }

            if (!shape.SequenceEqual(weight.Shape))
            {
                throw TrainingException.InvalidData(
                    $"'{weight.Name}' has shape [{string.Join(", ", shape)}], and config.json asks for [{string.Join(", ", weight.Shape)}]; "
                    + "take both from the same model.",
                    weight.Name);
            }
        }
    }
}
