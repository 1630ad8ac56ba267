using System.Text.Json;
using System.Text.Json.Serialization;

namespace TrainingService.Training.Exports;

/// <summary>What <c>export.json</c> holds: how the exported files were compared with the adapted model.</summary>
/// <param name="Format"><c>merged</c>, <c>peft</c> or <c>lora</c>.</param>
/// <param name="Prompts">Sequences that were compared.</param>
/// <param name="PromptTokens">Tokens in each.</param>
/// <param name="AlgebraError">
/// Relative L2 distance between the adapted model's logits and those after the update was folded into the weights in float32: what the
/// merge itself adds. Null for <c>peft</c>.
/// </param>
/// <param name="RelativeError">Relative L2 distance between the adapted model's logits and those of the written files, in float32 arithmetic.</param>
/// <param name="Bound">Largest distance at which the files are kept.</param>
/// <param name="MaxAbsoluteError">Largest difference of one logit.</param>
/// <param name="AdapterEffect">Relative L2 distance between the base model's logits and the adapted model's, for comparison.</param>
/// <param name="DType">Number format of the written weights.</param>
public sealed record ExportReport(
    string Format, int Prompts, int PromptTokens, double? AlgebraError, double RelativeError, double Bound, double MaxAbsoluteError,
    double AdapterEffect, string DType)
{
    public const string FileName = "export.json";

    private static readonly JsonSerializerOptions Json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower, WriteIndented = true };

    /// <summary>Of <c>lora</c>: relative L2 distance between the adapted model's logits and those of the written adapter, which may be an approximation.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? ApproximationError { get; init; }

    /// <summary>Of <c>lora</c>: how near each layer's factors are to the adapter's change.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<LoraLayerReport>? Layers { get; init; }

    [JsonIgnore]
    public bool Holds => double.IsFinite(RelativeError) && RelativeError <= Bound;

    internal void Write(string folder) => File.WriteAllText(Path.Combine(folder, FileName), JsonSerializer.Serialize(this, Json) + "\n");
}
