using System.Text.Json.Nodes;
using TrainingService.Training.Models;

namespace TrainingService.Training.Tests.Models;

public class ModelConfigTests
{
    private const string Llama = """
        {
          "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "vocab_size": 256,
          "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "bos_token_id": 1, "eos_token_id": [2, 3],
          "pad_token_id": 256, "initializer_range": 0.01, "torch_dtype": "bfloat16", "use_cache": true, "tie_word_embeddings": true,
          "transformers_version": "4.48.0", "_name_or_path": "x", "attention_dropout": 0.0, "hidden_act": "silu", "pretraining_tp": 1,
          "_attn_implementation_autoset": true, "quantization_config": null, "embedding_multiplier": 1.0, "num_experts": 0
        }
        """;

    [Fact]
    public void A_llama_is_read_with_all_that_matters()
    {
        var config = Assert.IsType<LlamaConfig>(ModelConfig.Parse(Llama));

        Assert.Equal("LlamaForCausalLM", config.Architecture);
        Assert.Equal((256, 64, 2, 128), (config.VocabularySize, config.HiddenSize, config.LayerCount, config.MaxPositions));
        Assert.Equal((96, 4, 2, 24), (config.IntermediateSize, config.HeadCount, config.KeyValueHeadCount, config.HeadWidth));
        Assert.Equal((1e-5, 500_000, 0.01), (config.NormEpsilon, config.Rope.Theta, config.InitializerRange));
        Assert.Null(config.Rope.Scaling);
        Assert.True(config.TiesHead);
        Assert.Equal(1, config.BosId);
        Assert.Equal([2, 3], config.EosIds);
        Assert.Null(config.PadId);   // 256 lies outside the vocabulary
        Assert.False(config.HasQueryKeyValueBias || config.HasOutputBias || config.HasMlpBias);
    }

    [Fact]
    public void The_weights_of_a_llama_are_those_of_its_checkpoint()
    {
        var weights = ModelConfig.Parse(Llama).Weights;

        // 4 heads of 24 make 96 query rows, 2 groups make 48; the head is tied, so nothing stands after the norm.
        Assert.Equal(
            [
                "model.embed_tokens.weight [256, 64]", "model.layers.0.input_layernorm.weight [64]",
                "model.layers.0.self_attn.q_proj.weight [96, 64] linear", "model.layers.0.self_attn.k_proj.weight [48, 64] linear",
                "model.layers.0.self_attn.v_proj.weight [48, 64] linear", "model.layers.0.self_attn.o_proj.weight [64, 96] linear",
                "model.layers.0.post_attention_layernorm.weight [64]", "model.layers.0.mlp.gate_proj.weight [96, 64] linear",
                "model.layers.0.mlp.up_proj.weight [96, 64] linear", "model.layers.0.mlp.down_proj.weight [64, 96] linear",
            ],
            weights.Take(10).Select(Show));
        Assert.Equal("model.norm.weight [64]", Show(weights[^1]));
        Assert.Equal(1 + 2 * 9 + 1, weights.Count);
        Assert.Equal(256 * 64 + 2 * (64 + 96 * 64 + 2 * 48 * 64 + 64 * 96 + 64 + 3 * 96 * 64) + 64, ModelConfig.Parse(Llama).ParameterCount);
    }

    [Fact]
    public void Biases_follow_the_architecture_and_its_switches()
    {
        Assert.Equal(
            ["q_proj", "k_proj", "v_proj", "o_proj"],
            Biases(Llama, ("attention_bias", true)).Select(name => name.Split('.')[^2]));
        Assert.Equal(
            ["gate_proj", "up_proj", "down_proj"],
            Biases(Llama, ("mlp_bias", true)).Select(name => name.Split('.')[^2]));
        Assert.Equal(
            ["q_proj", "k_proj", "v_proj"],
            Biases(Llama, ("architectures", new JsonArray("Qwen2ForCausalLM")), ("model_type", "qwen2"))
                .Select(name => name.Split('.')[^2]));
        Assert.Empty(Biases(
            Llama, ("architectures", new JsonArray("MistralForCausalLM")), ("model_type", "mistral"), ("sliding_window", null)));

        static IEnumerable<string> Biases(string json, params (string, JsonNode?)[] changes) =>
            ModelConfig.Parse(With(json, changes)).Weights.Select(weight => weight.Name)
                .Where(name => name.Contains(".0.", StringComparison.Ordinal) && name.EndsWith(".bias", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("hidden_act", "\"gelu\"", "hidden_act = \"gelu\"")]
    [InlineData("sliding_window", "64", "sliding_window = 64")]
    [InlineData("use_sliding_window", "true", "use_sliding_window = true")]
    [InlineData("layer_types", """["full_attention","sliding_attention"]""", "layer_types")]
    [InlineData("quantization_config", """{"bits":4}""", "quantization_config = {\"bits\":4}")]
    [InlineData("partial_rotary_factor", "0.5", "partial_rotary_factor = 0.5")]
    [InlineData("pretraining_tp", "2", "pretraining_tp = 2")]
    [InlineData("attention_dropout", "0.1", "attention_dropout = 0.1")]
    [InlineData("attention_multiplier", "0.5", "attention_multiplier = 0.5")]
    [InlineData("embedding_multiplier", "12", "embedding_multiplier = 12")]
    [InlineData("residual_multiplier", "0.22", "residual_multiplier = 0.22")]
    [InlineData("logit_scale", "0.0625", "logit_scale = 0.0625")]
    [InlineData("logits_scaling", "8", "logits_scaling = 8")]
    [InlineData("final_logit_softcapping", "30.0", "final_logit_softcapping = 30.0")]
    [InlineData("attn_logit_softcapping", "50.0", "attn_logit_softcapping = 50.0")]
    [InlineData("query_pre_attn_scalar", "256", "query_pre_attn_scalar = 256")]
    [InlineData("qk_norm", "true", "qk_norm = true")]
    [InlineData("use_qk_norm", "true", "use_qk_norm = true")]
    [InlineData("num_local_experts", "8", "num_local_experts = 8")]
    [InlineData("no_rope_layers", "[1,0]", "no_rope_layers = [1,0]")]
    [InlineData("auto_map", """{"AutoModelForCausalLM":"modeling.Mine"}""", "auto_map.AutoModelForCausalLM")]
    [InlineData("architectures", """["GPT2LMHeadModel"]""", "architectures = \"GPT2LMHeadModel\"")]
    [InlineData("model_type", "\"mistral\"", "model_type = \"mistral\"")]
    [InlineData("rope_scaling", """{"type":"yarn","factor":4.0}""", "rope_scaling.rope_type = \"yarn\"")]
    [InlineData("rope_scaling", """{"rope_type":"dynamic","factor":4.0}""", "rope_scaling.rope_type = \"dynamic\"")]
    [InlineData("rope_scaling", """{"rope_type":"longrope","short_factor":[1]}""", "rope_scaling.rope_type = \"longrope\"")]
    [InlineData("rope_scaling", """{"rope_type":"linear","factor":4.0,"attention_factor":2.0}""", "rope_scaling.attention_factor = 2.0")]
    [InlineData("rope_parameters", """{"rope_type":"default","partial_rotary_factor":0.25}""", "partial_rotary_factor = 0.25")]
    [InlineData("rope_parameters", """{"full_attention":{"rope_type":"default"}}""", "rope_parameters.full_attention")]
    public void A_setting_that_would_be_computed_wrongly_is_refused_with_its_value(string member, string value, string expected)
    {
        var error = Refusal((member, JsonNode.Parse(value)));

        Assert.StartsWith($"config.json: {expected}", error.Message, StringComparison.Ordinal);
        Assert.Contains("changes what the model computes and is not supported; ", error.Message, StringComparison.Ordinal);
        Assert.StartsWith("config.json:", error.Param, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("hidden_size", "0")]
    [InlineData("hidden_size", "-64")]
    [InlineData("hidden_size", "1e30")]
    [InlineData("hidden_size", "\"64\"")]
    [InlineData("hidden_size", "null")]
    [InlineData("intermediate_size", "0")]
    [InlineData("num_hidden_layers", "1000000000")]
    [InlineData("num_attention_heads", "0")]
    [InlineData("num_key_value_heads", "3")]
    [InlineData("num_key_value_heads", "8")]
    [InlineData("head_dim", "23")]
    [InlineData("head_dim", "1000000")]
    [InlineData("head_dim", "null", "num_attention_heads", "5")]
    [InlineData("vocab_size", "0")]
    [InlineData("vocab_size", "99999999999")]
    [InlineData("max_position_embeddings", "-1")]
    [InlineData("rms_norm_eps", "-1e-5")]
    [InlineData("rms_norm_eps", "\"small\"")]
    [InlineData("rope_theta", "0")]
    [InlineData("rope_theta", "-10000")]
    [InlineData("initializer_range", "-1")]
    [InlineData("tie_word_embeddings", "1")]
    [InlineData("bos_token_id", "\"<s>\"")]
    [InlineData("eos_token_id", "[1.5]")]
    [InlineData("architectures", "[]")]
    [InlineData("architectures", """["LlamaForCausalLM","MistralForCausalLM"]""")]
    [InlineData("architectures", "7")]
    [InlineData("rope_scaling", "4")]
    [InlineData("rope_scaling", """{"rope_type":"linear"}""", "rope_scaling.", null, "factor")]
    [InlineData("rope_scaling", """{"rope_type":"linear","factor":0}""", "rope_scaling.", null, "factor")]
    [InlineData("rope_scaling", """{"rope_type":"linear","type":"llama3","factor":2}""")]
    [InlineData("rope_scaling", """{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":1,"original_max_position_embeddings":64}""", "rope_scaling.", null, "high_freq_factor")]
    [InlineData("rope_parameters", """{"rope_type":"default","rope_theta":10000}""")]
    public void An_absurd_value_is_refused_by_name(string member, string value, string? other = null, string? otherValue = null, string? named = null)
    {
        var changes = new List<(string, JsonNode?)> { (member, JsonNode.Parse(value)) };
        if (otherValue is not null)
        {
            changes.Add((other!, JsonNode.Parse(otherValue)));
        }

        var error = Refusal([.. changes]);

        Assert.Contains(named ?? (otherValue is null ? member : other!), error.Message, StringComparison.Ordinal);
        Assert.StartsWith("config.json", error.Param, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("[]")]
    [InlineData("nonsense")]
    [InlineData("{\"hidden_size\":1,\"hidden_size\":2}")]
    [InlineData("{\"\\ud800\":1}")]
    [InlineData("{\"architectures\":[\"\\ud800\"]}")]
    [InlineData("{}")]
    public void A_text_that_is_no_configuration_is_refused(string json) =>
        Assert.Equal(FailureCode.InvalidData, Assert.Throws<TrainingException>(() => ModelConfig.Parse(json)).Code);

    [Fact]
    public void A_sliding_window_that_hides_nothing_is_accepted()
    {
        Assert.NotNull(ModelConfig.Parse(With(Llama, ("sliding_window", 128))));
        (string, JsonNode?)[] qwen = [("architectures", new JsonArray("Qwen2ForCausalLM")), ("model_type", "qwen2"), ("max_window_layers", 1)];
        Assert.NotNull(ModelConfig.Parse(With(Llama, [.. qwen, ("sliding_window", 64), ("use_sliding_window", false)])));
        Assert.Contains(
            "sliding_window = 64", Refusal([.. qwen, ("sliding_window", 64), ("use_sliding_window", true)]).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Mistral_without_the_member_means_a_window_of_4096()
    {
        (string, JsonNode?)[] mistral = [("architectures", new JsonArray("MistralForCausalLM")), ("model_type", "mistral")];

        Assert.NotNull(ModelConfig.Parse(With(Llama, [.. mistral, ("max_position_embeddings", 4096)])));
        Assert.Contains(
            "sliding_window = 4096", Refusal([.. mistral, ("max_position_embeddings", 32_768)]).Message, StringComparison.Ordinal);
    }

    private static TrainingException Refusal(params (string, JsonNode?)[] changes)
    {
        var error = Assert.Throws<TrainingException>(() => ModelConfig.Parse(With(Llama, changes)));
        Assert.Equal(FailureCode.InvalidData, error.Code);
        return error;
    }

    private static string With(string json, params (string Member, JsonNode? Value)[] changes)
    {
        var config = JsonNode.Parse(json)!.AsObject();
        foreach (var (member, value) in changes)
        {
            config[member] = value?.DeepClone();
        }

        return config.ToJsonString();
    }

    private static string Show(WeightShape weight) =>
        $"{weight.Name} [{string.Join(", ", weight.Shape)}]{(weight.IsLinear ? " linear" : "")}";
}
