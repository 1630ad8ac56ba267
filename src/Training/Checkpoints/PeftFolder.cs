using System.Text;
using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Checkpoints;

/// <summary>A folder in Hugging Face PEFT's layout: <c>adapter_config.json</c>, <c>adapter_model.safetensors</c>, <c>README.md</c>.</summary>
internal sealed class PeftFolder
{
    public const string WeightsFile = "adapter_model.safetensors";

    /// <summary>What every key starts with; the name of the weight in the base model follows.</summary>
    public const string KeyPrefix = "base_model.model.";

    /// <summary>What this service chose, where the saved tensors are another form of those that train.</summary>
    public const string MethodFile = "adapter_method.json";

    private const long LargestConfigBytes = 4 << 20;

    private readonly string _weights;
    private readonly string _configJson;
    private readonly LayerAdapterConfig? _method;

    private PeftFolder(string weights, string configJson, LayerAdapterConfig? method)
    {
        _weights = weights;
        _configJson = configJson;
        _method = method;
    }

    /// <summary>What the folder calls its base model; null when it does not say.</summary>
    public string? BaseModel => PeftConfig.Parse(_configJson).BaseModel;

    /// <summary>Finds the files of a saved adapter.</summary>
    /// <exception cref="TrainingException">Files are missing, a pickle takes their place, or the adapter is of another kind.</exception>
    public static PeftFolder Open(string folder)
    {
        if (!Directory.Exists(folder))
        {
            throw TrainingException.InvalidSpec("The adapter folder does not exist; give the folder that holds adapter_config.json.", "adapter.from");
        }

        var weights = Path.Combine(folder, WeightsFile);
        if (!File.Exists(weights))
        {
            var pickle = Directory.EnumerateFiles(folder)
                .Select(Path.GetFileName)
                .FirstOrDefault(name => Path.GetExtension(name) is ".bin" or ".pt" or ".pth" or ".ckpt");
            throw pickle is null
                ? TrainingException.InvalidData($"The adapter folder has no {WeightsFile}; give the folder that PEFT's save_pretrained wrote.", WeightsFile)
                : TrainingException.InvalidData(
                    $"The adapter's tensors are a pickle ({pickle}), which can run code when it is loaded and is refused; load it in PEFT on a "
                    + "machine that you trust and call save_pretrained(folder, safe_serialization=True).", pickle);
        }

        var config = Path.Combine(folder, PeftConfig.FileName);
        if (!File.Exists(config))
        {
            throw TrainingException.InvalidData($"The adapter folder has no {PeftConfig.FileName}; copy it from where the adapter was saved.", PeftConfig.FileName);
        }

        var json = ReadText(config);
        PeftConfig.CheckKind(json);
        var method = Path.Combine(folder, MethodFile);
        return new PeftFolder(weights, json, File.Exists(method) ? MethodOf(ReadText(method)) : null);
    }

    /// <summary>Whether the model under the adapter has an output head for tokens; a folder without a configuration is left to <see cref="Open"/>.</summary>
    public static bool PredictsTokens(string folder) =>
        Path.Combine(folder, PeftConfig.FileName) is var config && File.Exists(config) && PeftConfig.PredictsTokens(ReadText(config));

    /// <summary>A small file beside the weights.</summary>
    internal static string ReadText(string path)
    {
        var (name, bytes) = (Path.GetFileName(path), PlainFile.LengthOf(path));
        return bytes <= LargestConfigBytes ? File.ReadAllText(path) : throw TrainingException.InvalidData(
            $"{name} has {bytes} bytes, more than the {LargestConfigBytes} that are read; copy it from where the adapter was saved.", name);
    }

    private static LayerAdapterConfig MethodOf(string json)
    {
        try
        {
            using var document = JsonDocument.Parse(json, new JsonDocumentOptions { MaxDepth = 16 });
            var reader = new SpecReader(SpecJson.Options);
            return reader.Read(document.RootElement, typeof(AdapterConfig)) as LayerAdapterConfig ?? throw TrainingException.InvalidData(
                $"{MethodFile} cannot be used: {(reader.Errors.Count > 0 ? reader.Errors[0].Message : "it names no method on layers.")}", MethodFile);
        }
        catch (JsonException error)
        {
            throw TrainingException.InvalidData($"{MethodFile} is not JSON ({error.Message.TrimEnd('.')}); save the adapter again.", MethodFile, error);
        }
    }

    /// <summary>The choice that the folder stands for, to attach it as it was saved.</summary>
    public AdapterConfig Choice => _method ?? PeftConfig.Parse(_configJson).Choice;

    /// <summary>The same, of a method on layers.</summary>
    /// <exception cref="TrainingException">It is another method.</exception>
    public LayerAdapterConfig Config => Choice as LayerAdapterConfig ?? throw TrainingException.InvalidData(
        $"The adapter ({Choice.Title}) changes no layers; give one that does.", PeftConfig.FileName);

    /// <summary>The choice that the folder and the spec make together: the folder decides what the spec leaves at its default.</summary>
    /// <exception cref="TrainingException">They contradict each other, or the adapter was made for another base.</exception>
    public LayerAdapterConfig Reconcile(LayerAdapterConfig spec, ModelConfig model)
    {
        using var file = SafeTensorsFile.Open(_weights);
        CheckBase(file, spec, model);
        var saved = PeftConfig.Parse(_configJson);
        if ((_method?.GetType() == spec.GetType() ? _method : saved.Choice) is not LayerAdapterConfig chosen)
        {
            throw SavedAdapter.SavedByAnother(spec.Name, saved.Choice.Name);
        }

        var modules = LayerPlan.ModulesOf(model);
        var full = modules.Where(module => chosen.ModulesToSave.Any(name => PeftConfig.PeftSaves(name, module))).ToList();
        if (model.TiesHead && !saved.TiesWeights && full.Any(module => module.EndsWith("embed_tokens", StringComparison.Ordinal)))
        {
            throw TrainingException.InvalidData(
                "The adapter trained embed_tokens apart from the output head, which shares its weights in this model; save it with "
                + "ensure_weight_tying, or merge it in PEFT.", $"{PeftConfig.FileName}:ensure_weight_tying");
        }

        var config = chosen with
        {
            TargetModules = saved.LayersToTransform ? OfTensors(file) : Existing(chosen.TargetModules, modules),
            ExcludeModules = chosen.ExcludeModules is { } exclude && modules.Any(exclude.Selects) ? Existing(exclude, modules) : null,
            ModulesToSave = full.Where(module => module != LayerPlan.OutputHead || !model.TiesHead).ToList(),
        };
        return SavedAdapter.Reconcile(spec, config, model);
    }

    /// <inheritdoc cref="Reconcile(LayerAdapterConfig, ModelConfig)"/>
    public VirtualTokensConfig Reconcile(VirtualTokensConfig spec, ModelConfig model)
    {
        if (Choice is not VirtualTokensConfig saved || saved.GetType() != spec.GetType())
        {
            throw SavedAdapter.SavedByAnother(spec.Name, Choice.Name);
        }

        // PEFT notes the sizes of the base: they tell it from another one where the numbers would fit both.
        using var document = JsonDocument.Parse(_configJson);
        var sizes = saved.PeftShape(model, "");
        foreach (var field in (string[])["num_layers", "token_dim", "num_attention_heads"])
        {
            if (document.RootElement.TryGetProperty(field, out var found) && found.ValueKind == JsonValueKind.Number && found.GetRawText() != sizes[field]!.ToJsonString())
            {
                throw TrainingException.InvalidData(
                    $"The adapter was made for another base: {PeftConfig.FileName} sets {field} to {found.GetRawText()}, and this model needs {sizes[field]}.",
                    $"{PeftConfig.FileName}:{field}");
            }
        }

        return SavedAdapter.Reconcile(spec, saved);
    }

    /// <summary>Hands the file's tensors to those that are saved under the same keys.</summary>
    public void CopyInto(IReadOnlyList<SavedTensor> tensors, AdapterConfig config)
    {
        using var file = SafeTensorsFile.Open(_weights);
        var expected = tensors.ToDictionary(tensor => tensor.Name);

        // PEFT looks for biases of adapted layers under a name that they do not have, so its lora_only files hold none.
        var layers = config as LayerAdapterConfig;
        bool MayBeAbsent(string key) => layers?.TrainedBiases == BiasTraining.LoraOnly && key.EndsWith(".base_layer.bias", StringComparison.Ordinal);
        var copies = CopiesIn(file, tensors);
        var entries = file.Entries.Where(entry => layers?.Derives(entry.Key) != true && !copies.ContainsKey(entry.Key)).ToList();
        CheckKeys([.. entries.Select(entry => entry.Key)], [.. expected.Keys], MayBeAbsent);
        using var off = no_grad();
        foreach (var (copy, original) in copies)
        {
            CheckCopy(file, copy, original);
        }

        foreach (var (key, entry) in entries)
        {
            using var scope = NewDisposeScope();
            var tensor = expected[key];
            if (!tensor.Takes(entry.Shape))
            {
                throw TrainingException.InvalidData(
                    $"The adapter was made for another base: '{key}' is {Shape(entry.Shape)}, this model needs {Shape(tensor.Shape)}.", WeightsFile);
            }

            var values = file.Read(key);
            if (!values.isfinite().all().item<bool>())
            {
                throw TrainingException.InvalidData($"'{key}' holds numbers that are not finite; the adapter is damaged.", WeightsFile);
            }

            tensor.Write(values);
        }
    }

    /// <summary>Writes the files. Nothing is written when a tensor holds a number that is not finite.</summary>
    public static void Write(
        string folder, AdapterConfig config, ModelConfig model, IReadOnlyList<SavedTensor> tensors, ModelCard card)
    {
        var published = (config as LayerAdapterConfig)?.Published ?? config;
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var values = tensors.OrderBy(tensor => tensor.Name, StringComparer.Ordinal).Select(tensor => (tensor.Name, tensor.Read())).ToList();
        FiniteTensors.Check(values);
        Directory.CreateDirectory(folder);
        SafeTensorsWriter.Write(Path.Combine(folder, WeightsFile), values, new Dictionary<string, string> { ["format"] = "pt" });
        File.WriteAllBytes(Path.Combine(folder, PeftConfig.FileName), PeftConfig.Write(published, model, card.BaseModel));
        File.WriteAllText(Path.Combine(folder, "README.md"), ModelCardText.ForAdapter(card, config.Name, config.Title), new UTF8Encoding(false));
        SavedObjective.Write(folder, card);
        var method = Path.Combine(folder, MethodFile);
        if (published == config)
        {
            File.Delete(method);
        }
        else
        {
            File.WriteAllText(method, JsonSerializer.Serialize(config.Disclosed with { From = null }, SpecJson.Options) + "\n");
        }
    }

    // The module that a key belongs to must exist: this is what differs first when an adapter is attached to the wrong model.
    private static void CheckBase(SafeTensorsFile file, LayerAdapterConfig config, ModelConfig model)
    {
        var linears = LayerPlan.LinearsOf(model);
        var modules = LayerPlan.ModulesOf(model).ToHashSet();
        string[] endings = [.. config.TensorsOf(linears[0]).Select(tensor => "." + tensor.Name)];
        foreach (var (key, entry) in file.Entries.OrderBy(entry => entry.Key, StringComparer.Ordinal))
        {
            if (Array.Find(endings, ending => key.EndsWith(ending, StringComparison.Ordinal)) is not { } ending)
            {
                continue;
            }

            var module = key[..^ending.Length];
            if (!module.StartsWith(KeyPrefix, StringComparison.Ordinal) || !modules.Contains(module[KeyPrefix.Length..]))
            {
                var example = model.Weights.First(weight => weight.IsLinear);
                throw TrainingException.InvalidData(
                    $"The adapter was made for another base: '{key}' {Shape(entry.Shape)} belongs to a layer that this model "
                    + $"({model.Architecture}) does not have; its layers are named like '{example.Name}' {Shape(example.Shape)}.", WeightsFile);
            }
        }
    }

    // PEFT writes what all layers share once more beside each of them, for some methods.
    private static Dictionary<string, string> CopiesIn(SafeTensorsFile file, IReadOnlyList<SavedTensor> tensors)
    {
        var names = tensors.Select(tensor => tensor.Name).ToHashSet();
        var shared = names.Where(name => !name.StartsWith(KeyPrefix, StringComparison.Ordinal))
            .ToDictionary(name => name[(name.LastIndexOf('.') + 1)..]);
        return file.Entries.Keys
            .Where(key => key.StartsWith(KeyPrefix, StringComparison.Ordinal) && !names.Contains(key) && shared.ContainsKey(LastOf(key)))
            .ToDictionary(key => key, key => shared[LastOf(key)]);

        static string LastOf(string key) => key[(key.LastIndexOf('.') + 1)..];
    }

    private static void CheckCopy(SafeTensorsFile file, string key, string original)
    {
        using var scope = NewDisposeScope();
        var (copy, all) = (file.Entries[key], file.Entries[original]);
        if (!copy.Shape.SequenceEqual(all.Shape)
            || !file.Share(key, copy.DType.ToScalarType(), CPU).equal(file.Share(original, all.DType.ToScalarType(), CPU)).all().item<bool>())
        {
            throw TrainingException.InvalidData(
                $"'{key}' differs from '{original}', which all layers share; save the adapter again.", WeightsFile);
        }
    }

    private static void CheckKeys(HashSet<string> found, HashSet<string> expected, Func<string, bool> mayBeAbsent)
    {
        var missing = expected.Where(key => !found.Contains(key) && !mayBeAbsent(key)).Order(StringComparer.Ordinal).ToList();
        if (missing.Count > 0)
        {
            throw TrainingException.InvalidData(
                $"{WeightsFile} lacks {missing.Count} of {expected.Count} tensors, the first is '{missing[0]}'; "
                + "use the adapter with the configuration that it was saved with.", WeightsFile);
        }

        var surplus = found.Where(key => !expected.Contains(key)).Order(StringComparer.Ordinal).ToList();
        if (surplus.Count > 0)
        {
            throw TrainingException.InvalidData(
                $"{WeightsFile} holds {surplus.Count} tensors that {PeftConfig.FileName} does not account for, the first is '{surplus[0]}'; "
                + "use the adapter with the configuration that it was saved with.", WeightsFile);
        }
    }

    private static ModuleSelector OfTensors(SafeTensorsFile file) => ModuleSelector.OfNames(file.Entries.Keys
        .Where(key => key.EndsWith(".lora_A.weight", StringComparison.Ordinal))
        .Select(key => key[KeyPrefix.Length..^".lora_A.weight".Length])
        .Order(StringComparer.Ordinal)
        .ToList());

    // PEFT lets a list name layers that a model does not have; the keys of the file decide whether something is missing.
    private static ModuleSelector Existing(ModuleSelector selector, IReadOnlyList<string> modules) =>
        selector.Names?.Where(name => modules.Any(module => TargetSelection.Means(name, module))).ToList() is { Count: > 0 } names
            ? ModuleSelector.OfNames(names)
            : selector;

    private static string Shape(IEnumerable<long> shape) => $"[{string.Join(", ", shape)}]";
}
