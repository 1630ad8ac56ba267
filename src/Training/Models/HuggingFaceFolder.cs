using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>A model in the layout that Hugging Face libraries, vLLM and llama.cpp's converter read.</summary>
public static class HuggingFaceFolder
{
    private const string Single = "model.safetensors";
    private const string Index = "model.safetensors.index.json";
    private const long LargestShardBytes = 5_000_000_000;
    private const long LargestConfigBytes = 4 << 20;

    /// <summary>What belongs to a model beside its weights and its configuration.</summary>
    private static readonly string[] CompanionFiles =
    [
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json",
    ];

    private static readonly JsonSerializerOptions Indented = new()
    {
        WriteIndented = true,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>Checks a folder without reading its weights: configuration, names, shapes, number formats. Loads no libtorch.</summary>
    /// <exception cref="TrainingException">What <see cref="CausalLm.Load"/> would refuse.</exception>
    public static ModelConfig Check(string folder)
    {
        var config = ReadConfig(folder);
        using var checkpoint = CheckpointFolder.Open(folder);
        CheckpointNames.Match(config, checkpoint);
        return config;
    }

    /// <summary>Reads the folder's <c>config.json</c>.</summary>
    /// <exception cref="TrainingException">It is missing, not valid, or asks for what is not implemented.</exception>
    public static ModelConfig ReadConfig(string folder)
    {
        var file = new FileInfo(Path.Combine(folder, "config.json"));
        if (!file.Exists)
        {
            throw WithoutConfig(folder);
        }

        var bytes = PlainFile.LengthOf(file.FullName);
        return bytes <= LargestConfigBytes
            ? ModelConfig.Parse(File.ReadAllText(file.FullName))
            : throw TrainingException.InvalidData(
                $"config.json has {bytes} bytes, more than the {LargestConfigBytes} that are read; take it from the model's own folder again.",
                "config.json");
    }

    /// <summary>Writes a model: <c>config.json</c>, its weights in their format (in shards above a size), and the tokenizer's files.</summary>
    /// <param name="model">Its own weights are written, not what adapters put in their place; a tied head once, as the embedding.</param>
    /// <param name="folder">Made where it is absent; weights of an earlier model in it are replaced.</param>
    /// <param name="copyTokenizerFrom">Folder of the base model, whose tokenizer and generation settings are copied; null for none.</param>
    /// <param name="shardBytes">Largest shard.</param>
    public static void Save(CausalLm model, string folder, string? copyTokenizerFrom, long shardBytes = LargestShardBytes)
    {
        if (model.Quantization is not null)
        {
            throw new InvalidOperationException("A model with quantised weights has to be dequantised before it is saved.");
        }

        Directory.CreateDirectory(folder);
        var shards = Shards(model, shardBytes);
        var names = shards.Count == 1
            ? [Single]
            : Enumerable.Range(1, shards.Count)
                .Select(number => string.Create(CultureInfo.InvariantCulture, $"model-{number:D5}-of-{shards.Count:D5}.safetensors")).ToArray();

        // The index goes first and comes back last: an interrupted save leaves no folder that reads as a whole but mixed model.
        var written = names.ToHashSet(StringComparer.Ordinal);
        File.Delete(Path.Combine(folder, Index));
        foreach (var stale in new[] { Single, "model-?????-of-?????.safetensors" }
            .SelectMany(pattern => Directory.GetFiles(folder, pattern)).Where(file => !written.Contains(Path.GetFileName(file))))
        {
            File.Delete(stale);
        }

        for (var number = 0; number < shards.Count; number++)
        {
            SafeTensorsWriter.Write(Path.Combine(folder, names[number]), shards[number]);
        }

        WriteText(folder, "config.json", ConfigJson(model));
        if (copyTokenizerFrom is not null)
        {
            CopyCompanions(copyTokenizerFrom, folder);
        }

        if (shards.Count > 1)
        {
            WriteText(folder, Index, IndexJson(shards, names));
        }
    }

    /// <summary>
    /// Makes a folder that was copied from a decoder one that scores: its configuration, its index where it has one, and a token for padding that no answer
    /// ends with, since Hugging Face's class finds the end of a row by it.
    /// </summary>
    /// <param name="places">For each tensor its shard and its bytes.</param>
    internal static void WriteScoring(CausalLm model, string folder, IReadOnlyDictionary<string, (string File, long Bytes)> places)
    {
        var path = Path.Combine(folder, "config.json");
        var config = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        model.Config.Score!.Write(config, model.Config.Architecture);
        var tokenizer = Tokenizer.IsIn(folder) ? Tokenizer.Load(folder) : null;
        var ends = model.Config.EosIds.Concat(tokenizer?.EosId is { } end ? [end] : []).ToHashSet();
        var pad = new[] { model.Config.PadId, tokenizer?.PadId, tokenizer?.BosId, model.Config.BosId }
            .Concat(Enumerable.Range(0, model.Config.VocabularySize).Select(id => (int?)id))
            .First(id => id is { } known && known >= 0 && known < model.Config.VocabularySize && !ends.Contains(known))!.Value;
        config["pad_token_id"] = pad;
        WriteText(folder, "config.json", config.ToJsonString(Indented));
        if (tokenizer is not null && tokenizer.PadId != pad)
        {
            foreach (var name in (string[])["tokenizer_config.json", "special_tokens_map.json"])
            {
                if (File.Exists(Path.Combine(folder, name)) && JsonNode.Parse(File.ReadAllText(Path.Combine(folder, name))) is JsonObject settings)
                {
                    settings["pad_token"] = tokenizer.Decode([pad], skipSpecialTokens: false);
                    WriteText(folder, name, settings.ToJsonString(Indented));
                }
            }
        }

        if (File.Exists(Path.Combine(folder, Index)))
        {
            WriteText(folder, Index, IndexJson(places));
        }
    }

    private static TrainingException WithoutConfig(string folder)
    {
        if (!Directory.Exists(folder))
        {
            return TrainingException.InvalidSpec(
                $"There is no model folder '{Path.GetFileName(Path.TrimEndingDirectorySeparator(folder))}'; give the folder that holds config.json "
                + $"and {Single}.", "model");
        }

        if (!File.Exists(Path.Combine(folder, PeftConfig.FileName)))
        {
            return TrainingException.InvalidData("The model folder has no config.json; give a folder in Hugging Face layout.", "config.json");
        }

        var baseModel = PeftFolder.Open(folder).BaseModel;
        return TrainingException.InvalidData(
            $"The folder holds an adapter, not a base model; give the model that it was trained on{(baseModel is null ? "" : $" ('{baseModel}')")}, "
            + "and name the adapter in adapter.from.", PeftConfig.FileName);
    }

    private static void CopyCompanions(string from, string folder)
    {
        foreach (var name in CompanionFiles.Where(name => File.Exists(Path.Combine(from, name))))
        {
            if (Path.GetFullPath(from) != Path.GetFullPath(folder))
            {
                File.Copy(Path.Combine(from, name), Path.Combine(folder, name), overwrite: true);
            }
        }
    }

    private static List<List<(string Name, Tensor Tensor)>> Shards(CausalLm model, long shardBytes)
    {
        var shards = new List<List<(string Name, Tensor Tensor)>> { new() };
        var filled = 0L;
        foreach (var (name, parameter) in model.NamedWeights())
        {
            var bytes = Bytes(parameter);
            if (filled > 0 && filled + bytes > shardBytes)
            {
                shards.Add([]);
                filled = 0;
            }

            shards[^1].Add((name, parameter));
            filled += bytes;
        }

        return shards;
    }

    private static long Bytes(Tensor tensor) => tensor.numel() * tensor.element_size();

    private static string ConfigJson(CausalLm model)
    {
        var config = JsonNode.Parse(model.Config.SourceJson)!.AsObject();
        var dtype = SafeTensorTypes.FromScalarType(model.DType) switch
        {
            SafeTensorType.F16 => "float16",
            SafeTensorType.BF16 => "bfloat16",
            SafeTensorType.F64 => "float64",
            _ => "float32",
        };
        config[config.ContainsKey("dtype") ? "dtype" : "torch_dtype"] = dtype;
        model.Config.Score?.Write(config, model.Config.Architecture);
        return config.ToJsonString(Indented);
    }

    private static string IndexJson(List<List<(string Name, Tensor Tensor)>> shards, string[] names) => IndexJson(shards.Zip(names)
        .SelectMany(shard => shard.First.Select(item => (item.Name, Place: (File: shard.Second, Bytes: Bytes(item.Tensor)))))
        .ToDictionary(item => item.Name, item => item.Place));

    private static string IndexJson(IReadOnlyDictionary<string, (string File, long Bytes)> places) => new JsonObject
    {
        ["metadata"] = new JsonObject { ["total_size"] = places.Values.Sum(place => place.Bytes) },
        ["weight_map"] = new JsonObject(places.Select(place => KeyValuePair.Create(place.Key, (JsonNode?)place.Value.File))),
    }.ToJsonString(Indented);

    private static void WriteText(string folder, string name, string text)
    {
        var part = Path.Combine(folder, $"{name}.part");
        File.WriteAllText(part, text + "\n");
        File.Move(part, Path.Combine(folder, name), overwrite: true);
    }
}
