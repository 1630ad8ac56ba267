using System.Text.Json;
using TrainingService.Training.Quantization;

namespace TrainingService.Training.Models;

/// <summary>The Llama family: RMS norms, rotary positions, grouped-query attention, and a gated SiLU block; Mistral and Qwen2 are it too.</summary>
public sealed record LlamaConfig : ModelConfig
{
    /// <summary>Class names under <c>architectures</c> that this configuration describes.</summary>
    public static readonly IReadOnlyList<string> Architectures = ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"];

    internal static readonly IReadOnlyDictionary<string, string> ByModelType = new Dictionary<string, string>
    {
        ["llama"] = "LlamaForCausalLM",
        ["mistral"] = "MistralForCausalLM",
        ["qwen2"] = "Qwen2ForCausalLM",
    };

    private const int LargestVocabulary = 1 << 24;
    private const int LargestWidth = 1 << 20;
    private const int MostLayers = 1 << 10;

    /// <summary>Width of the gated block.</summary>
    public required int IntermediateSize { get; init; }

    /// <summary>ε of the norms.</summary>
    public required double NormEpsilon { get; init; }

    public required RopeConfig Rope { get; init; }

    /// <summary>Whether q_proj, k_proj and v_proj have biases.</summary>
    public required bool HasQueryKeyValueBias { get; init; }

    /// <summary>Whether o_proj has a bias.</summary>
    public required bool HasOutputBias { get; init; }

    /// <summary>Whether gate_proj, up_proj and down_proj have biases.</summary>
    public required bool HasMlpBias { get; init; }

    public override IReadOnlyList<WeightShape> Weights => [.. ListWeights()];

    public override CausalLm Build(WeightSource source, QuantizationConfig? quantization = null) => new LlamaModel(this, source, quantization);

    internal static LlamaConfig Read(string architecture, ConfigReader config, string json)
    {
        var hidden = config.Count("hidden_size", LargestWidth);
        var heads = config.Count("num_attention_heads", LargestWidth);
        var groups = config.Count("num_key_value_heads", LargestWidth, DefaultKeyValueHeads(architecture, heads));
        if (heads % groups != 0)
        {
            throw config.Invalid("num_key_value_heads", $"is {groups}", $"it must divide num_attention_heads, {heads}");
        }

        if (config.Member("head_dim") is null && hidden % heads != 0)
        {
            throw config.Invalid("num_attention_heads", $"is {heads}", $"it must divide hidden_size, {hidden}, or head_dim must be given");
        }

        var width = config.Count("head_dim", LargestWidth, Math.Max(1, hidden / heads));
        if (width % 2 != 0 || (long)width * heads > LargestWidth)
        {
            throw config.Invalid("head_dim", $"is {width}", $"it must be even, and times {heads} heads at most {LargestWidth}");
        }

        var vocabulary = config.Count("vocab_size", LargestVocabulary);
        var maxPositions = config.Count("max_position_embeddings", 1 << 30, DefaultMaxPositions(architecture));
        RefuseOtherMathematics(architecture, config, maxPositions);
        var isLlama = architecture == "LlamaForCausalLM";
        var result = new LlamaConfig
        {
            Architecture = architecture,
            VocabularySize = vocabulary,
            HiddenSize = hidden,
            LayerCount = config.Count("num_hidden_layers", MostLayers),
            MaxPositions = maxPositions,
            TiesHead = config.Flag("tie_word_embeddings"),
            BosId = First(config.Ids("bos_token_id", vocabulary)),
            EosIds = config.Ids("eos_token_id", vocabulary),
            PadId = First(config.Ids("pad_token_id", vocabulary)),
            InitializerRange = config.Number("initializer_range", 0, 10, 0.02),
            IntermediateSize = config.Count("intermediate_size", 1 << 24),
            HeadCount = heads,
            KeyValueHeadCount = groups,
            HeadWidth = width,
            NormEpsilon = config.Number("rms_norm_eps", 1e-12, 1e-1, 1e-6),
            Rope = RopeConfig.Read(config),
            HasQueryKeyValueBias = architecture == "Qwen2ForCausalLM" || (isLlama && config.Flag("attention_bias")),
            HasOutputBias = isLlama && config.Flag("attention_bias"),
            HasMlpBias = isLlama && config.Flag("mlp_bias"),
            SourceJson = json,
        };
        config.RefuseUnreadMathematics();
        return result;
    }

    private static int? First(IReadOnlyList<int> ids) => ids.Count > 0 ? ids[0] : null;

    /// <summary>What the original class assumes where the member is missing.</summary>
    private static int? DefaultKeyValueHeads(string architecture, int heads) => architecture switch
    {
        "MistralForCausalLM" => 8,
        "Qwen2ForCausalLM" => 32,
        _ => heads,
    };

    private static int DefaultMaxPositions(string architecture) => architecture switch
    {
        "MistralForCausalLM" => 131_072,
        "Qwen2ForCausalLM" => 32_768,
        _ => 2_048,
    };

    private static void RefuseOtherMathematics(string architecture, ConfigReader config, int maxPositions)
    {
        config.Only("hidden_act", "silu", "only silu is implemented");
        config.Only("pretraining_tp", "1", "set it to 1, which computes the same in one piece");
        config.Only("partial_rotary_factor", "1", "only whole heads are rotated");
        config.Only("attention_dropout", "0", "set it to 0");
        if (config.Member("quantization_config") is { } quantization)
        {
            throw ConfigReader.Refuse("quantization_config", quantization.GetRawText(), "use the model in F32, F16 or BF16");
        }

        if (architecture != "LlamaForCausalLM")
        {
            config.Only("attention_bias", "false", $"{architecture} has fixed biases");
            config.Only("mlp_bias", "false", $"{architecture} has no such biases");
        }

        if (config.Member("auto_map") is { } map && map.ValueKind == JsonValueKind.Object && map.TryGetProperty("AutoModelForCausalLM", out var code))
        {
            throw ConfigReader.Refuse("auto_map.AutoModelForCausalLM", code.GetRawText(), "a model that brings its own code cannot run here");
        }

        RefuseSlidingWindow(architecture, config, maxPositions);
    }

    private static void RefuseSlidingWindow(string architecture, ConfigReader config, int maxPositions)
    {
        if (config.Member("layer_types") is { } types
            && (types.ValueKind != JsonValueKind.Array
                || types.EnumerateArray().Any(type => type.ValueKind != JsonValueKind.String || type.GetString() != "full_attention")))
        {
            throw ConfigReader.Refuse("layer_types", types.GetRawText(), "only full_attention is implemented");
        }

        const string Remedy =
            "set it to null and max_position_embeddings to the window's length, which gives the same numbers up to that length";
        const int MistralDefault = 4096;
        if (architecture == "MistralForCausalLM" && !config.Has("sliding_window") && MistralDefault < maxPositions)
        {
            throw ConfigReader.Refuse("sliding_window", $"{MistralDefault} (what Mistral takes when the member is missing)", Remedy);
        }

        // Qwen2 has a switch beside the number; a window at least as long as the longest sequence hides nothing.
        var isSwitchedOn = architecture != "Qwen2ForCausalLM" || config.Flag("use_sliding_window");
        if (config.Member("sliding_window") is { ValueKind: not JsonValueKind.False } window && isSwitchedOn
            && !(window.ValueKind == JsonValueKind.Number && window.TryGetInt64(out var length) && length >= maxPositions))
        {
            throw ConfigReader.Refuse("sliding_window", window.GetRawText(), Remedy);
        }

        if (architecture != "Qwen2ForCausalLM")
        {
            config.Only("use_sliding_window", "false", Remedy);
        }
    }

    private IEnumerable<WeightShape> ListWeights()
    {
        var queryWidth = (long)HeadCount * HeadWidth;
        var groupWidth = (long)KeyValueHeadCount * HeadWidth;
        yield return new("model.embed_tokens.weight", [VocabularySize, HiddenSize], false);
        for (var layer = 0; layer < LayerCount; layer++)
        {
            var prefix = $"model.layers.{layer}";
            IEnumerable<WeightShape> weights =
            [
                new($"{prefix}.input_layernorm.weight", [HiddenSize], false),
                .. LinearLayer($"{prefix}.self_attn.q_proj", queryWidth, HiddenSize, HasQueryKeyValueBias),
                .. LinearLayer($"{prefix}.self_attn.k_proj", groupWidth, HiddenSize, HasQueryKeyValueBias),
                .. LinearLayer($"{prefix}.self_attn.v_proj", groupWidth, HiddenSize, HasQueryKeyValueBias),
                .. LinearLayer($"{prefix}.self_attn.o_proj", HiddenSize, queryWidth, HasOutputBias),
                new($"{prefix}.post_attention_layernorm.weight", [HiddenSize], false),
                .. LinearLayer($"{prefix}.mlp.gate_proj", IntermediateSize, HiddenSize, HasMlpBias),
                .. LinearLayer($"{prefix}.mlp.up_proj", IntermediateSize, HiddenSize, HasMlpBias),
                .. LinearLayer($"{prefix}.mlp.down_proj", HiddenSize, IntermediateSize, HasMlpBias),
            ];
            foreach (var weight in weights)
            {
                yield return weight;
            }
        }

        yield return new("model.norm.weight", [HiddenSize], false);
        if (!TiesHead && PredictsTokens)
        {
            yield return new("lm_head.weight", [VocabularySize, HiddenSize], true);
        }

        foreach (var weight in Score?.Weights(HiddenSize) ?? [])
        {
            yield return weight;
        }
    }

    private static IEnumerable<WeightShape> LinearLayer(string name, long outputs, long inputs, bool hasBias)
    {
        yield return new($"{name}.weight", [outputs, inputs], true);
        if (hasBias)
        {
            yield return new($"{name}.bias", [outputs], false);
        }
    }
}
