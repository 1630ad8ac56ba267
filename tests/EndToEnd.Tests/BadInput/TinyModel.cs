using System.Buffers.Binary;
using System.Text;
using System.Text.Json.Nodes;
using TrainingService.Training.Models;

namespace TrainingService.EndToEnd.Tests.BadInput;

/// <summary>A Llama of a few kilobytes without a tokenizer, and files that are almost right. Every number comes from a formula.</summary>
internal static class TinyModel
{
    public const string Config = """
        {
          "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32,
          "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
          "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false
        }
        """;

    public static void Write(string folder)
    {
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "config.json"), Config);
        File.WriteAllBytes(Path.Combine(folder, "model.safetensors"), Weights());
    }

    /// <param name="change">Changes names and shapes before they are written.</param>
    public static byte[] Weights(Action<Dictionary<string, long[]>>? change = null)
    {
        var shapes = ModelConfig.Parse(Config).Weights.ToDictionary(weight => weight.Name, weight => weight.Shape);
        change?.Invoke(shapes);
        return SafeTensors(shapes);
    }

    /// <summary>A BPE vocabulary of so many tokens of one character.</summary>
    public static string Tokenizer(int size) => new JsonObject
    {
        ["version"] = "1.0",
        ["added_tokens"] = new JsonArray(),
        ["model"] = new JsonObject
        {
            ["type"] = "BPE",
            ["vocab"] = new JsonObject(Enumerable.Range(0, size).Select(id => KeyValuePair.Create(((char)('!' + id)).ToString(), (JsonNode?)id))),
            ["merges"] = new JsonArray(),
        },
    }.ToJsonString();

    /// <summary>A PEFT folder that adapts one layer.</summary>
    /// <param name="layer">Key of the layer in the base model.</param>
    public static void WriteAdapter(string folder, string layer, long width)
    {
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "adapter_config.json"), $$"""
            {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "another", "r": 2, "lora_alpha": 4,
             "target_modules": ["{{layer[(layer.LastIndexOf('.') + 1)..]}}"], "bias": "none", "lora_dropout": 0.0}
            """);
        File.WriteAllBytes(Path.Combine(folder, "adapter_model.safetensors"), SafeTensors(new Dictionary<string, long[]>
        {
            [$"base_model.model.{layer}.lora_A.weight"] = [2, width],
            [$"base_model.model.{layer}.lora_B.weight"] = [width, 2],
        }));
    }

    /// <summary>A safetensors file with this header and no data.</summary>
    public static byte[] Header(string json, long? claimedLength = null)
    {
        var text = Encoding.UTF8.GetBytes(json);
        var file = new byte[8 + text.Length];
        BinaryPrimitives.WriteInt64LittleEndian(file, claimedLength ?? text.Length);
        text.CopyTo(file, 8);
        return file;
    }

    private static byte[] SafeTensors(IReadOnlyDictionary<string, long[]> shapes)
    {
        var header = new JsonObject();
        var data = new List<byte>();
        foreach (var (name, shape) in shapes)
        {
            var start = data.Count;
            var count = shape.Aggregate(1L, (product, size) => product * size);
            for (var i = 0L; i < count; i++)
            {
                var value = shape.Length == 1 ? 1f : (i * 37 % 101 - 50) / 200f;
                data.AddRange(BitConverter.GetBytes(value));
            }

            header[name] = new JsonObject
            {
                ["dtype"] = "F32",
                ["shape"] = new JsonArray([.. shape.Select(size => (JsonNode)size)]),
                ["data_offsets"] = new JsonArray(start, data.Count),
            };
        }

        return [.. Header(header.ToJsonString()), .. data];
    }
}
