using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;

namespace TrainingService.Training.Quantization;

/// <summary>An adapter over a quantised base: what cannot be, and the file beside the adapter that says how its base was held.</summary>
/// <remarks>
/// <c>adapter_config.json</c> has no place for it and stays as PEFT writes it, but the factors belong to the base that they were trained on:
/// whoever runs or merges the adapter has to quantise in the same way.
/// </remarks>
public static class QuantizedBase
{
    public const string FileName = "quantization.json";

    private const long LargestBytes = 1 << 16;

    /// <summary>What to do about a module that trains in full and would be quantised.</summary>
    internal static string RefusesTrained(string module) =>
        $"adapter.modules_to_save trains {module} in full, and quantization holds its weight in codes, which do not train; "
        + "adapt it by factors instead, or leave quantization out.";

    /// <summary>The linear layers that train in full although a quantised base holds them in codes.</summary>
    internal static IReadOnlyList<string> Trained(IReadOnlyList<string> fullWeights, ModelConfig model) =>
        [.. model.Weights.Where(QuantizationConfig.Covers).Select(weight => weight.Name).Intersect(fullWeights).Select(LayerPlan.ModuleOf)];

    /// <summary>Says beside an adapter how its base was held; removes what an earlier save said when it was not quantised.</summary>
    internal static void Write(string folder, QuantizationConfig? quantization)
    {
        var path = Path.Combine(folder, FileName);
        if (quantization is null)
        {
            File.Delete(path);
            return;
        }

        var part = path + ".part";
        File.WriteAllText(part, JsonSerializer.Serialize(quantization, SpecJson.Options) + "\n");
        File.Move(part, path, overwrite: true);
    }

    /// <summary>How the base of a saved adapter was held; null: as plain numbers.</summary>
    /// <exception cref="TrainingException">The file cannot be read.</exception>
    public static QuantizationConfig? Of(string adapterFolder)
    {
        var path = Path.Combine(adapterFolder, FileName);
        if (!File.Exists(path))
        {
            return null;
        }

        if (PlainFile.LengthOf(path) > LargestBytes)
        {
            throw Unusable("it is too long");
        }

        try
        {
            using var document = JsonDocument.Parse(File.ReadAllText(path), new JsonDocumentOptions { MaxDepth = 8 });
            var reader = new SpecReader(SpecJson.Options);
            return (QuantizationConfig?)reader.Read(document.RootElement, typeof(QuantizationConfig)) ?? throw Unusable(
                reader.Errors.Count > 0 ? reader.Errors[0].Message.TrimEnd('.') : "it says null");
        }
        catch (JsonException error)
        {
            throw Unusable($"it is not JSON ({error.Message.TrimEnd('.')})", error);
        }
    }

    private static TrainingException Unusable(string what, Exception? inner = null) => TrainingException.InvalidData(
        $"{FileName} beside the adapter cannot be used: {what}; copy it from where the adapter was saved.", FileName, inner);
}
