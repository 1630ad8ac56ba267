using System.Text.Json;
using TrainingService.Training.Adapters;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>Adapters with values by formula, and what is written of them.</summary>
internal static class Filled
{
    /// <summary>Gives every trained tensor numbers of up to <paramref name="size"/>, another stretch of one sine for each.</summary>
    public static void ByFormula(Adapter adapter, double size)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var start = 1L;
        foreach (var tensor in adapter.Trainable)
        {
            var count = tensor.Parameter.numel();
            tensor.Parameter.copy_(arange(start, start + count, dtype: ScalarType.Float32).sin().mul(size).reshape(tensor.Parameter.shape));
            start += count;
        }
    }

    /// <summary>A trained tensor by the ending of its name.</summary>
    public static Tensor Of(Adapter adapter, string ending) =>
        adapter.Trainable.Single(tensor => tensor.Name.EndsWith(ending, StringComparison.Ordinal)).Parameter;

    /// <summary>Every field of a saved configuration.</summary>
    public static Dictionary<string, JsonElement> Fields(string folder)
    {
        using var document = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "adapter_config.json")));
        return document.RootElement.EnumerateObject().ToDictionary(field => field.Name, field => field.Value.Clone());
    }

    /// <summary>Changes one field of a saved configuration; null takes it away.</summary>
    public static void SetField(string folder, string name, string? json)
    {
        var path = Path.Combine(folder, "adapter_config.json");
        var fields = System.Text.Json.Nodes.JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        fields.Remove(name);
        if (json is not null)
        {
            fields[name] = System.Text.Json.Nodes.JsonNode.Parse(json);
        }

        File.WriteAllText(path, fields.ToJsonString());
    }
}
