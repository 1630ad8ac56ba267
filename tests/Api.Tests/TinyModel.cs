using System.Buffers.Binary;
using System.Text;
using System.Text.Json.Nodes;
using TrainingService.Training.Models;

namespace TrainingService.Api.Tests;

/// <summary>A model folder of a few kilobytes: weights all zero, shapes as the configuration asks.</summary>
internal static class TinyModel
{
    public const string Config = """
        {
          "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32,
          "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048,
          "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
          "bos_token_id": 1, "eos_token_id": 2
        }
        """;

    public static string Write(string folder)
    {
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "config.json"), Config);
        File.WriteAllBytes(Path.Combine(folder, "model.safetensors"), Weights());
        return folder;
    }

    /// <param name="change">Changes the header's shapes before it is written.</param>
    public static byte[] Weights(Action<Dictionary<string, long[]>>? change = null)
    {
        var shapes = ModelConfig.Parse(Config).Weights.ToDictionary(weight => weight.Name, weight => weight.Shape);
        change?.Invoke(shapes);
        var header = new JsonObject();
        long offset = 0;
        foreach (var (name, shape) in shapes)
        {
            var bytes = shape.Aggregate(4L, (product, size) => product * size);
            header[name] = new JsonObject
            {
                ["dtype"] = "F32",
                ["shape"] = new JsonArray([.. shape.Select(size => (JsonNode)size)]),
                ["data_offsets"] = new JsonArray(offset, offset + bytes),
            };
            offset += bytes;
        }

        var text = Encoding.UTF8.GetBytes(header.ToJsonString());
        var file = new byte[8 + text.Length + offset];
        BinaryPrimitives.WriteInt64LittleEndian(file, text.Length);
        text.CopyTo(file, 8);
        return file;
    }
}
