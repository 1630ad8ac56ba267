using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace TrainingService.Training;

/// <summary>Which layers keep their input alone and are computed again in the backward pass.</summary>
/// <remarks>On the wire: <c>off</c>, <c>full</c>, or n for every n-th layer.</remarks>
[JsonConverter(typeof(ActivationCheckpointingConverter))]
[WireForm("""
    [
      { "const": "off", "title": "No layer" },
      { "const": "full", "title": "Every layer" },
      { "type": "integer", "minimum": 1, "maximum": 10000, "title": "Every n-th layer" }
    ]
    """)]
public sealed record ActivationCheckpointing
{
    public static readonly ActivationCheckpointing Off = new();

    public static readonly ActivationCheckpointing Full = new() { Every = 1 };

    /// <summary>1 for every layer, 2 for every second one; 0 for none.</summary>
    public int Every { get; private init; }

    public static ActivationCheckpointing EveryNth(int n) => new() { Every = n };

    /// <summary>Whether a layer, counted from zero, is computed again: of every n layers the first.</summary>
    public bool Recomputes(int layer) => Every > 0 && layer % Every == 0;

    public override string ToString() => Every switch
    {
        0 => "off",
        1 => "full",
        _ => Every.ToString(CultureInfo.InvariantCulture),
    };
}

internal sealed class ActivationCheckpointingConverter : JsonConverter<ActivationCheckpointing>
{
    private const int Most = 10_000;

    public override ActivationCheckpointing Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        if (reader.TokenType == JsonTokenType.Number && reader.TryGetInt32(out var every) && every is >= 1 and <= Most)
        {
            return ActivationCheckpointing.EveryNth(every);
        }

        return (reader.TokenType == JsonTokenType.String ? reader.GetString() : null) switch
        {
            "off" => ActivationCheckpointing.Off,
            "full" => ActivationCheckpointing.Full,
            _ => throw new JsonException("must be \"off\", \"full\", or a whole number n from 1 to 10000 for every n-th layer"),
        };
    }

    public override void Write(Utf8JsonWriter writer, ActivationCheckpointing value, JsonSerializerOptions options)
    {
        if (value.Every > 1)
        {
            writer.WriteNumberValue(value.Every);
            return;
        }

        writer.WriteStringValue(value.ToString());
    }
}
