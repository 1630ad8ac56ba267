using System.Text;
using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Checkpoints;

/// <summary>A folder in Hugging Face PEFT's layout: <c>adapter_config.json</c>, <c>adapter_model.safetensors</c>, <c>README.md</c>.</summary>
internal sealed class PeftFolder
{
    public const string WeightsFile = "adapter_model.safetensors";

    /// <summary>What every key starts with; the name of the weight in the base model follows.</summary>
    public const string KeyPrefix = "base_model.model.";

    private const long LargestConfigBytes = 4 << 20;

    private readonly string _weights;
    private readonly string _configJson;

    private PeftFolder(string weights, string configJson)
    {
        _weights = weights;
        _configJson = configJson;
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

        var bytes = PlainFile.LengthOf(config);
        var json = bytes <= LargestConfigBytes ? File.ReadAllText(config) : throw TrainingException.InvalidData(
            $"{PeftConfig.FileName} has {bytes} bytes, more than the {LargestConfigBytes} that are read; copy it from where the adapter was saved.",
            PeftConfig.FileName);
        PeftConfig.CheckKind(json);
        return new PeftFolder(weights, json);
    }

    /// <summary>The choice that the folder and the spec make together: the folder decides what the spec leaves at its default.</summary>
    /// <exception cref="TrainingException">They contradict each other, or the adapter was made for another base.</exception>
    public LoraConfig Reconcile(LoraConfig spec, ModelConfig model)
    {
        using var file = SafeTensorsFile.Open(_weights);
        CheckBase(file, model);
        var saved = PeftConfig.Parse(_configJson);
        var modules = LoraPlan.ModulesOf(model);
        var full = modules.Where(module => saved.Config.ModulesToSave.Any(name => PeftConfig.PeftSaves(name, module))).ToList();
        if (model.TiesHead && !saved.TiesWeights && full.Any(module => module.EndsWith("embed_tokens", StringComparison.Ordinal)))
        {
            throw TrainingException.InvalidData(
                "The adapter trained embed_tokens apart from the output head, which shares its weights in this model; save it with "
                + "ensure_weight_tying, or merge it in PEFT.", $"{PeftConfig.FileName}:ensure_weight_tying");
        }

        var config = saved.Config with
        {
            TargetModules = saved.LayersToTransform ? OfTensors(file) : Existing(saved.Config.TargetModules, modules),
            ExcludeModules = saved.Config.ExcludeModules is { } exclude && modules.Any(exclude.Selects) ? Existing(exclude, modules) : null,
            RankPattern = saved.Config.RankPattern,
            ModulesToSave = full.Where(module => module != LoraPlan.OutputHead || !model.TiesHead).ToList(),
        };
        return SavedAdapter.Reconcile(spec, config, model);
    }

    /// <summary>Copies the file's tensors into the parameters of the same keys.</summary>
    public void CopyInto(IReadOnlyList<TrainableTensor> trainable, BiasTraining bias)
    {
        using var file = SafeTensorsFile.Open(_weights);
        var expected = trainable.ToDictionary(tensor => tensor.Name, tensor => tensor.Parameter);

        // PEFT looks for biases of adapted layers under a name that they do not have, so its lora_only files hold none.
        bool MayBeAbsent(string key) => bias == BiasTraining.LoraOnly && key.EndsWith(".base_layer.bias", StringComparison.Ordinal);
        CheckKeys(file, [.. expected.Keys], MayBeAbsent);
        using var off = no_grad();
        foreach (var (key, entry) in file.Entries)
        {
            using var scope = NewDisposeScope();
            var parameter = expected[key];
            if (!entry.Shape.SequenceEqual(parameter.shape))
            {
                throw TrainingException.InvalidData(
                    $"The adapter was made for another base: '{key}' is {Shape(entry.Shape)}, this model needs {Shape(parameter.shape)}.", WeightsFile);
            }

            var values = file.Read(key);
            if (!values.isfinite().all().item<bool>())
            {
                throw TrainingException.InvalidData($"'{key}' holds numbers that are not finite; the adapter is damaged.", WeightsFile);
            }

            parameter.copy_(values.to(parameter.dtype, parameter.device));
        }
    }

    /// <summary>Writes the three files. Nothing is written when a tensor holds a number that is not finite.</summary>
    public static void Write(
        string folder, LoraConfig config, ModelConfig model, IReadOnlyList<TrainableTensor> trainable, ModelCard card)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        FiniteTensors.Check(trainable);
        Directory.CreateDirectory(folder);
        SafeTensorsWriter.Write(
            Path.Combine(folder, WeightsFile),
            trainable.OrderBy(tensor => tensor.Name, StringComparer.Ordinal).Select(tensor => (tensor.Name, (Tensor)tensor.Parameter)).ToList(),
            new Dictionary<string, string> { ["format"] = "pt" });
        File.WriteAllBytes(Path.Combine(folder, PeftConfig.FileName), PeftConfig.Write(config, model, card.BaseModel));
        File.WriteAllText(Path.Combine(folder, "README.md"), ModelCardText.ForAdapter(card), new UTF8Encoding(false));
    }

    // The module that a key belongs to must exist: this is what differs first when an adapter is attached to the wrong model.
    private static void CheckBase(SafeTensorsFile file, ModelConfig model)
    {
        var modules = LoraPlan.ModulesOf(model).ToHashSet();
        foreach (var (key, entry) in file.Entries.OrderBy(entry => entry.Key, StringComparer.Ordinal))
        {
            var at = key.IndexOf(".lora_", StringComparison.Ordinal);
            if (at < 0)
            {
                continue;
            }

            var module = key[..at];
            if (!module.StartsWith(KeyPrefix, StringComparison.Ordinal) || !modules.Contains(module[KeyPrefix.Length..]))
            {
                var example = model.Weights.First(weight => weight.IsLinear);
                throw TrainingException.InvalidData(
                    $"The adapter was made for another base: '{key}' {Shape(entry.Shape)} belongs to a layer that this model "
                    + $"({model.Architecture}) does not have; its layers are named like '{example.Name}' {Shape(example.Shape)}.", WeightsFile);
            }
        }
    }

    private static void CheckKeys(SafeTensorsFile file, HashSet<string> expected, Func<string, bool> mayBeAbsent)
    {
        var missing = expected.Where(key => !file.Entries.ContainsKey(key) && !mayBeAbsent(key)).Order(StringComparer.Ordinal).ToList();
        if (missing.Count > 0)
        {
            throw TrainingException.InvalidData(
                $"{WeightsFile} lacks {missing.Count} of {expected.Count} tensors, the first is '{missing[0]}'; "
                + "use the adapter with the configuration that it was saved with.", WeightsFile);
        }

        var surplus = file.Entries.Keys.Where(key => !expected.Contains(key)).Order(StringComparer.Ordinal).ToList();
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
