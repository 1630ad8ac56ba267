using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace TrainingService.Training.Spectra;

/// <summary>What <c>spectra.json</c> holds; docs/spectra.md describes it for readers.</summary>
/// <param name="Format">Name and version of this layout.</param>
/// <param name="ExactSize">Matrices whose smaller side is above this have leading values only.</param>
/// <param name="Quantization">Type of the quantisation whose dequantised weights were measured as W, such as <c>nf4</c>; null: W is not quantised.</param>
/// <param name="Layers">In the model's order.</param>
public sealed record SpectraReport(string Format, int ExactSize, string? Quantization, IReadOnlyList<LayerSpectra> Layers)
{
    public const string CurrentFormat = "training-service/spectra/1";

    public const string FileName = "spectra.json";

    /// <summary>The layout on disk: unindented, since the lists of values are long.</summary>
    public static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        Converters = { new SevenDigits() },
    };

    /// <summary>Float32 values carry no more than seven digits; the rest would only make the file three times as long.</summary>
    private sealed class SevenDigits : JsonConverter<double>
    {
        public override double Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.GetDouble();

        public override void Write(Utf8JsonWriter writer, double value, JsonSerializerOptions options) =>
            writer.WriteNumberValue(double.Parse(
                value.ToString("G7", System.Globalization.CultureInfo.InvariantCulture), System.Globalization.CultureInfo.InvariantCulture));
    }
}

/// <summary>One matrix before, in and after its change.</summary>
/// <param name="Name">Name of the layer, such as <c>model.layers.0.self_attn.q_proj</c>.</param>
/// <param name="Layer">The number in its name; null when it has none.</param>
/// <param name="Type">The last part of its name, such as <c>q_proj</c>.</param>
/// <param name="Shape">[out, in].</param>
/// <param name="Rank">Rank of the factors; null for a dense change or none.</param>
/// <param name="Scale">What multiplies the product of the factors; null as <paramref name="Rank"/>.</param>
/// <param name="Weight">Of the base model's W.</param>
/// <param name="Update">Of ΔW; null when the model is described alone.</param>
/// <param name="Sum">Of W + ΔW; null likewise.</param>
/// <param name="RelativeUpdate">‖ΔW‖F/‖W‖F; null likewise, or when W is zero.</param>
public sealed record LayerSpectra(
    string Name, int? Layer, string Type, long[] Shape, int? Rank, double? Scale, Spectrum Weight, Spectrum? Update, Spectrum? Sum,
    double? RelativeUpdate)
{
    /// <summary>Fills what follows from the name and the norms.</summary>
    public static LayerSpectra Create(
        string name, long[] shape, Spectrum weight, Spectrum? update = null, Spectrum? sum = null, int? rank = null, double? scale = null)
    {
        var parts = name.Split('.');
        return new LayerSpectra(
            name,
            parts.Select(part => int.TryParse(part, out var number) ? number : (int?)null).FirstOrDefault(number => number is not null),
            parts[^1], shape, rank, scale, weight, update, sum,
            update is null || weight.FrobeniusNorm == 0 ? null : update.FrobeniusNorm / weight.FrobeniusNorm);
    }
}
