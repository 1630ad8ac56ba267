using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Training.Adapters;
using TrainingService.Training.Models;

namespace TrainingService.Training.Checkpoints;

/// <summary>An <c>adapter_config.json</c> as Hugging Face PEFT writes it.</summary>
/// <param name="Choice">The same choice in our words; <see cref="LayerAdapterConfig.ModulesToSave"/> as the file has it.</param>
/// <param name="BaseModel">What the file calls its base model.</param>
/// <param name="LayersToTransform">Whether only some layers are adapted; the tensors of the folder tell which.</param>
internal sealed record PeftConfig(AdapterConfig Choice, string? BaseModel, bool LayersToTransform, bool TiesWeights)
{
    public const string FileName = "adapter_config.json";

    private const string Lora = "LORA";
    private const string CausalTask = "CAUSAL_LM";

    /// <summary>The PEFT release whose set of fields is written.</summary>
    private const string PeftVersion = "0.20.0";

    private static readonly JsonWriterOptions Indented =
        new() { Indented = true, IndentSize = 2, NewLine = "\n", Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    // Fields of PEFT's LoraConfig that neither change what is computed nor are read here.
    private static readonly HashSet<string> Neutral = [.. PeftFields.Neutral, "eva_config", "megatron_core", "qalora_group_size"];

    private static readonly HashSet<string> Read =
    [
        "alpha_pattern", "bias", "ensure_weight_tying", "exclude_modules", "init_lora_weights", "layers_to_transform", "lora_alpha",
        "lora_dropout", "modules_to_save", "r", "rank_pattern", "target_modules", "use_dora", "use_rslora",
    ];

    // Initialisations that subtract their start from the base weights: the saved factors fit the changed base only.
    private static readonly string[] BaseChangingStarts = ["pissa", "olora", "corda", "loftq", "lora_ga"];

    /// <summary>Reads the document and refuses by name what is not known here.</summary>
    public static PeftConfig Parse(string json)
    {
        try
        {
            using var document = JsonDocument.Parse(json, new JsonDocumentOptions { AllowDuplicateProperties = false, MaxDepth = 16 });
            return KindOf(document.RootElement) == Lora ? ParseLora(document.RootElement) : ParseOther(document.RootElement);
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException or FormatException)
        {
            throw TrainingException.InvalidData(
                $"{FileName} is not a valid PEFT configuration ({error.Message.TrimEnd('.')}); export the adapter again.", FileName, error);
        }
    }

    /// <summary>The kind that the document states, before anything else is judged.</summary>
    public static void CheckKind(string json)
    {
        try
        {
            using var document = JsonDocument.Parse(json, new JsonDocumentOptions { MaxDepth = 16 });
            var kind = KindOf(document.RootElement);
            if (kind != Lora && !PeftFields.Knows(kind))
            {
                throw Refuse("peft_type", kind, "there is no such method here; export the adapter as LoRA, or merge it in PEFT");
            }
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException)
        {
            throw TrainingException.InvalidData(
                $"{FileName} is not a valid PEFT configuration ({error.Message.TrimEnd('.')}); export the adapter again.", FileName, error);
        }
    }

    /// <summary>Whether the model under the adapter has an output head for tokens, as a document says that this service wrote.</summary>
    public static bool PredictsTokens(string json)
    {
        try
        {
            using var document = JsonDocument.Parse(json, new JsonDocumentOptions { MaxDepth = 16 });
            return document.RootElement.TryGetProperty("task_type", out var task) && task.ValueEquals(CausalTask);
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException)
        {
            throw TrainingException.InvalidData(
                $"{FileName} is not a valid PEFT configuration ({error.Message.TrimEnd('.')}); export the adapter again.", FileName, error);
        }
    }

    /// <summary>Writes the document with every field of PEFT's configuration of the method, sorted, indented by two.</summary>
    public static byte[] Write(AdapterConfig config, ModelConfig model, string baseModel)
    {
        var fields = config switch
        {
            LayerAdapterConfig layers => FieldsOf(layers, model),
            VirtualTokensConfig tokens => FieldsOf(tokens, tokens.PeftShape(model, baseModel)),
            _ => throw new InvalidOperationException($"{config.Name} is saved as a model, not as an adapter."),
        };
        fields["base_model_name_or_path"] = w => w.WriteStringValue(baseModel);
        fields["inference_mode"] = w => w.WriteBooleanValue(true);
        fields["peft_version"] = w => w.WriteStringValue(PeftVersion);
        fields["task_type"] = w => w.WriteStringValue(model.PredictsTokens ? CausalTask : "SEQ_CLS");
        foreach (var absent in (string[])["auto_mapping", "revision"])
        {
            fields[absent] = w => w.WriteNullValue();
        }

        using var buffer = new MemoryStream();
        using (var writer = new Utf8JsonWriter(buffer, Indented))
        {
            writer.WriteStartObject();
            foreach (var (name, write) in fields)
            {
                writer.WritePropertyName(name);
                write(writer);
            }

            writer.WriteEndObject();
        }

        return buffer.ToArray();
    }

    private static SortedDictionary<string, Action<Utf8JsonWriter>> FieldsOf(LayerAdapterConfig config, ModelConfig model)
    {
        var plan = LayerPlan.Create(config, model);
        var fields = config is LowRankConfig lora ? FieldsOf(lora, model, plan) : FieldsOf(config, new JsonObject());
        if (config.PeftExcludes)
        {
            fields["exclude_modules"] = w => WriteSelector(w, config.ExcludeModules);
        }
        else
        {
            fields.Remove("exclude_modules");
        }

        fields["modules_to_save"] = w => WriteNames(w, SavedModules(config, model) is { Count: > 0 } saved ? saved : null);
        fields["target_modules"] = w =>
        {
            if (config.PeftExcludes || config.ExcludeModules is null)
            {
                WriteTargets(w, config, model, plan);
            }
            else
            {
                WriteNames(w, [.. plan.Layers.Select(layer => layer.Name)]);
            }
        };
        foreach (var absent in (string[])(config.PeftNumbersLayers ? ["layers_pattern", "layers_to_transform"] : []))
        {
            fields[absent] = w => w.WriteNullValue();
        }

        return fields;
    }

    private static SortedDictionary<string, Action<Utf8JsonWriter>> FieldsOf(AdapterConfig config, JsonObject shape)
    {
        var fields = new SortedDictionary<string, Action<Utf8JsonWriter>>(StringComparer.Ordinal);
        foreach (var (name, value) in PeftFields.Write(config).Concat(shape))
        {
            fields[name] = w => w.WriteRawValue(value?.ToJsonString() ?? "null");
        }

        return fields;
    }

    private static SortedDictionary<string, Action<Utf8JsonWriter>> FieldsOf(LowRankConfig config, ModelConfig model, LayerPlan plan)
    {
        var fields = new SortedDictionary<string, Action<Utf8JsonWriter>>(StringComparer.Ordinal)
        {
            ["alpha_pattern"] = w => WriteMap(w, Patterns(config.AlphaPattern, plan, layer => config.Select(layer).Alpha)),
            ["bias"] = w => w.WriteStringValue(config.Bias switch
            {
                BiasTraining.None => "none",
                BiasTraining.All => "all",
                BiasTraining.LoraOnly => "lora_only",
            }),
            ["ensure_weight_tying"] = w => w.WriteBooleanValue(model.TiesHead && plan.FullWeights.Contains("model.embed_tokens.weight")),
            ["fan_in_fan_out"] = w => w.WriteBooleanValue(false),
            ["init_lora_weights"] = w => w.WriteBooleanValue(true),
            ["loftq_config"] = WriteEmptyMap,
            ["lora_alpha"] = w => WriteNumber(w, config.Alpha),
            ["lora_bias"] = w => w.WriteBooleanValue(false),
            ["lora_dropout"] = w => w.WriteRawValue(config.Dropout.ToString("0.0################", CultureInfo.InvariantCulture)),
            ["megatron_core"] = w => w.WriteStringValue("megatron.core"),
            ["peft_type"] = w => w.WriteStringValue(Lora),
            ["qalora_group_size"] = w => w.WriteNumberValue(16),
            ["r"] = w => w.WriteNumberValue(config.Rank),
            ["rank_pattern"] = w => WriteMap(w, Patterns(config.RankPattern, plan, layer => config.Select(layer).Rank)),
            ["use_dora"] = w => w.WriteBooleanValue(config is DoraConfig),
            ["use_qalora"] = w => w.WriteBooleanValue(false),
            ["use_rslora"] = w => w.WriteBooleanValue(config.UseRslora),
        };
        foreach (var absent in (string[])
            ["alora_invocation_tokens", "arrow_config", "corda_config", "eva_config", "layer_replication", "lora_ga_config", "megatron_config",
             "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "velora_config"])
        {
            fields.Add(absent, w => w.WriteNullValue());
        }

        return fields;
    }

    /// <summary>Whether a name of <c>modules_to_save</c> means a module to PEFT: it compares the plain end, without asking for a dot.</summary>
    public static bool PeftSaves(string name, string module) => module.EndsWith(name, StringComparison.Ordinal);

    private static string KindOf(JsonElement root) => root.TryGetProperty("peft_type", out var value) ? value.GetString() ?? "null" : "null";

    private static PeftConfig ParseOther(JsonElement root)
    {
        var config = PeftFields.Read(KindOf(root), root);
        return new(config, Present(root, "base_model_name_or_path")?.GetString(), LayersToTransform: false, TiesWeights: false);
    }

    private static PeftConfig ParseLora(JsonElement root)
    {
        RefuseFeatures(root);
        LowRankConfig kind = root.TryGetProperty("use_dora", out var dora) && dora.GetBoolean() ? new DoraConfig() : new LoraConfig();
        var config = kind with
        {
            Rank = root.TryGetProperty("r", out var rank) ? rank.GetInt32() : 8,
            Alpha = root.TryGetProperty("lora_alpha", out var alpha) ? alpha.GetDouble() : 8,
            Dropout = root.TryGetProperty("lora_dropout", out var dropout) ? dropout.GetDouble() : 0,
            UseRslora = root.TryGetProperty("use_rslora", out var rslora) && rslora.GetBoolean(),
            TargetModules = Selector(root, "target_modules")
                ?? throw Refuse("target_modules", "null", "it must name the layers that the adapter changes"),
            ExcludeModules = Selector(root, "exclude_modules"),
            RankPattern = Map(root, "rank_pattern", value => value.GetInt32()),
            AlphaPattern = Map(root, "alpha_pattern", value => value.GetDouble()),
            ModulesToSave = Present(root, "modules_to_save") is { } saved ? Names(saved) : [],
            Bias = (root.TryGetProperty("bias", out var bias) ? bias.GetString() : "none") switch
            {
                "none" => BiasTraining.None,
                "all" => BiasTraining.All,
                "lora_only" => BiasTraining.LoraOnly,
                var other => throw Refuse("bias", other ?? "null", "use none, all or lora_only"),
            },
        };
        return new PeftConfig(
            config,
            Present(root, "base_model_name_or_path")?.GetString(),
            Present(root, "layers_to_transform") is not null,
            Present(root, "ensure_weight_tying")?.GetBoolean() ?? false);
    }

    private static void RefuseFeatures(JsonElement root)
    {
        if (Present(root, "init_lora_weights") is { ValueKind: JsonValueKind.String } start
            && BaseChangingStarts.Any(kind => start.GetString()!.StartsWith(kind, StringComparison.OrdinalIgnoreCase)))
        {
            throw Refuse(
                "init_lora_weights", start.GetString()!,
                "such an adapter fits a changed base; save it again in PEFT with path_initial_model_for_weight_conversion");
        }

        foreach (var field in root.EnumerateObject().Where(field => !Neutral.Contains(field.Name) && !Read.Contains(field.Name)))
        {
            if (!IsOff(field.Value))
            {
                throw Refuse(field.Name, Short(field.Value), "this feature is not supported; train the adapter without it or merge it in PEFT");
            }
        }
    }

    internal static bool IsOff(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Null or JsonValueKind.False => true,
        JsonValueKind.Object => !value.EnumerateObject().Any(),
        JsonValueKind.Array => value.GetArrayLength() == 0,
        _ => false,
    };

    private static JsonElement? Present(JsonElement root, string name) =>
        root.TryGetProperty(name, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;

    private static ModuleSelector? Selector(JsonElement root, string name) => Present(root, name) switch
    {
        null => null,
        { ValueKind: JsonValueKind.String } text => text.Deserialize<ModuleSelector>(SpecJson.Options),
        { } list => list.GetArrayLength() == 0 ? null : ModuleSelector.OfNames(Names(list)),
    };

    private static List<string> Names(JsonElement list) =>
        list.EnumerateArray().Select(name => name.GetString() ?? throw new JsonException("a module name is null")).ToList();

    private static Dictionary<string, T> Map<T>(JsonElement root, string name, Func<JsonElement, T> value) =>
        Present(root, name) is { } map ? map.EnumerateObject().ToDictionary(entry => entry.Name, entry => value(entry.Value)) : [];

    internal static TrainingException Refuse(string field, string value, string fix) =>
        TrainingException.InvalidData($"{FileName} sets {field} to {value}: {fix}.", $"{FileName}:{field}");

    internal static string Short(JsonElement value)
    {
        var text = value.GetRawText();
        return text.Length <= 60 ? text : text[..60] + "…";
    }

    // PEFT sorts the keys when it saves, and the first that matches counts: where that would choose otherwise, layers are named in full.
    private static IEnumerable<KeyValuePair<string, T>> Patterns<T>(
        IReadOnlyDictionary<string, T> patterns, LayerPlan plan, Func<LinearShape, T> value)
    {
        var sorted = patterns.OrderBy(entry => entry.Key, StringComparer.Ordinal).ToList();
        var same = plan.Layers.All(layer =>
            sorted.FindIndex(entry => ModulePattern.MatchesKey(entry.Key, layer.Name)) is var first
            && (first < 0 || EqualityComparer<T>.Default.Equals(sorted[first].Value, value(layer))));
        return same
            ? sorted
            : plan.Layers.Where(layer => patterns.Keys.Any(key => ModulePattern.MatchesKey(key, layer.Name)))
                .Select(layer => KeyValuePair.Create(layer.Name.Replace(".", "\\.", StringComparison.Ordinal), value(layer)))
                .OrderBy(entry => entry.Key, StringComparer.Ordinal);
    }

    // Names as given where PEFT would select the same modules by them, else every module by its whole name.
    private static IReadOnlyList<string> SavedModules(LayerAdapterConfig config, ModelConfig model)
    {
        // PEFT saves both names that classification models have for their head.
        if (model.Score is not null)
        {
            config = config with
            {
                ModulesToSave = [.. config.ModulesToSave.Where(name => name != ScoreHead.Module), .. model.PredictsTokens ? (string[])[] : ["classifier"], ScoreHead.Module],
            };
        }

        var modules = LayerPlan.ModulesOf(model);
        var ours = modules.Where(module => config.ModulesToSave.Any(name => TargetSelection.Means(name, module))).ToList();
        var theirs = modules.Where(module => config.ModulesToSave.Any(name => PeftSaves(name, module)));
        return ours.SequenceEqual(theirs) ? config.ModulesToSave : ours;
    }

    // all-linear is written out, as PEFT does: the last parts of the names where they select the same layers, else whole names.
    private static void WriteTargets(Utf8JsonWriter writer, LayerAdapterConfig config, ModelConfig model, LayerPlan plan)
    {
        if (!config.TargetModules.IsAllLinear)
        {
            WriteSelector(writer, config.TargetModules);
            return;
        }

        var chosen = plan.Layers.Select(layer => layer.Name).ToList();
        var endings = chosen.Select(name => name[(name.LastIndexOf('.') + 1)..]).Distinct().Order(StringComparer.Ordinal).ToList();
        var byEndings = LayerPlan.ModulesOf(model)
            .Where(module => endings.Any(ending => TargetSelection.Means(ending, module)) && !(config.ExcludeModules?.Selects(module) ?? false));
        WriteNames(writer, byEndings.ToHashSet().SetEquals(chosen) ? endings : chosen);
    }

    private static void WriteSelector(Utf8JsonWriter writer, ModuleSelector? selector)
    {
        if (selector?.Pattern is { } pattern)
        {
            writer.WriteStringValue(pattern);
        }
        else
        {
            WriteNames(writer, selector?.Names);
        }
    }

    private static void WriteNames(Utf8JsonWriter writer, IReadOnlyList<string>? names)
    {
        if (names is null)
        {
            writer.WriteNullValue();
            return;
        }

        writer.WriteStartArray();
        foreach (var name in names)
        {
            writer.WriteStringValue(name);
        }

        writer.WriteEndArray();
    }

    private static void WriteEmptyMap(Utf8JsonWriter writer)
    {
        writer.WriteStartObject();
        writer.WriteEndObject();
    }

    private static void WriteMap<T>(Utf8JsonWriter writer, IEnumerable<KeyValuePair<string, T>> map)
        where T : IConvertible
    {
        writer.WriteStartObject();
        foreach (var (key, value) in map)
        {
            writer.WritePropertyName(key);
            WriteNumber(writer, value.ToDouble(CultureInfo.InvariantCulture));
        }

        writer.WriteEndObject();
    }

    // PEFT declares lora_alpha as a whole number: 32, not 32.0.
    private static void WriteNumber(Utf8JsonWriter writer, double value)
    {
        if (value == Math.Floor(value) && Math.Abs(value) < 1e15)
        {
            writer.WriteNumberValue((long)value);
        }
        else
        {
            writer.WriteNumberValue(value);
        }
    }
}
