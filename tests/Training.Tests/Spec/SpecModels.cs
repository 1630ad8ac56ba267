using TrainingService.Training.Models;

namespace TrainingService.Training.Tests.Spec;

/// <summary>Configurations of known models, without weights.</summary>
internal static class SpecModels
{
    public static ModelConfig Llama32Of3B { get; } = ModelConfig.Parse("""
        { "architectures": ["LlamaForCausalLM"], "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
          "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": true,
          "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
          "rope_scaling": { "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192 } }
        """);

    public static ModelConfig Stories260K { get; } = ModelConfig.Parse("""
        { "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
          "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512, "tie_word_embeddings": true,
          "max_position_embeddings": 512, "rms_norm_eps": 1e-5 }
        """);

    /// <summary>Two layers of width 8, an untied head, and biases on q, k and v.</summary>
    public static ModelConfig Biased { get; } = ModelConfig.Parse("""
        { "architectures": ["Qwen2ForCausalLM"], "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32, "tie_word_embeddings": false, "max_position_embeddings": 64 }
        """);

    public static TrainingSpec Spec(string members) => SpecJson.Parse(SpecParseTests.With(members)) is { Errors: [], Spec: { } spec }
        ? spec
        : throw new ArgumentException($"not a valid spec: {members}", nameof(members));
}
