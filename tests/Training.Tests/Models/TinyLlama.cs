using System.Text.Json.Nodes;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Models;

/// <summary>A Llama of a few thousand numbers: 2 layers, D = 16, 4 heads of 4 in 2 groups, vocabulary 32, 32 positions.</summary>
internal static class TinyLlama
{
    public static ModelConfig Config(params (string Member, JsonNode? Value)[] changes)
    {
        var config = JsonNode.Parse("""
            {
              "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 24,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32,
              "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "initializer_range": 0.3
            }
            """)!.AsObject();
        foreach (var (member, value) in changes)
        {
            config[member] = value?.DeepClone();
        }

        return ModelConfig.Parse(config.ToJsonString());
    }

    public static CausalLm Create(params (string Member, JsonNode? Value)[] changes) =>
        CausalLm.Create(Config(changes), ScalarType.Float32, CPU, seed: 7);
}
