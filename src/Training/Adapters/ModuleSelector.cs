using System.Text.Json;
using System.Text.Json.Serialization;

namespace TrainingService.Training.Adapters;

/// <summary>Selects modules by name, as Hugging Face PEFT does.</summary>
/// <remarks>
/// On the wire: a list of names (a module matches when its name equals one or ends in <c>.</c> and one), a string that is a regular
/// expression for the whole name, or <c>all-linear</c>.
/// </remarks>
[JsonConverter(typeof(ModuleSelectorConverter))]
[WireForm("""
    [
      { "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1, "title": "List of names, or of endings of names" },
      { "const": "all-linear", "title": "all-linear" },
      { "type": "string", "minLength": 1, "title": "Regular expression" }
    ]
    """)]
public sealed record ModuleSelector
{
    /// <summary>Every linear layer but the output head.</summary>
    public static readonly ModuleSelector AllLinear = new() { IsAllLinear = true };

    public bool IsAllLinear { get; private init; }

    public IReadOnlyList<string>? Names { get; private init; }

    public string? Pattern { get; private init; }

    public static ModuleSelector OfNames(IReadOnlyList<string> names) => new() { Names = names };

    public static ModuleSelector OfPattern(string pattern) => new() { Pattern = pattern };

    /// <summary>Whether the module called <paramref name="name"/> is selected. <c>all-linear</c> selects every name that it is asked.</summary>
    public bool Selects(string name) =>
        IsAllLinear
        || (Names?.Any(entry => TargetSelection.Means(entry, name)) ?? false)
        || (Pattern is not null && ModulePattern.MatchesWhole(Pattern, name));

    public override string ToString() => IsAllLinear ? "all-linear" : Pattern ?? $"[{string.Join(", ", Names ?? [])}]";

    public bool Equals(ModuleSelector? other) => other is not null && ToString() == other.ToString();

    public override int GetHashCode() => ToString().GetHashCode(StringComparison.Ordinal);
}

internal sealed class ModuleSelectorConverter : JsonConverter<ModuleSelector>
{
    private const string Forms = "must be a list of module names, a regular expression, or \"all-linear\"";

    public override ModuleSelector Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        switch (reader.TokenType)
        {
            case JsonTokenType.String when reader.GetString() == "all-linear":
                return ModuleSelector.AllLinear;
            case JsonTokenType.String:
                var pattern = reader.GetString()!;
                return ModulePattern.Fault(pattern) switch
                {
                    _ when string.IsNullOrWhiteSpace(pattern) => throw new JsonException(Forms),
                    { } fault => throw new JsonException($"is not a valid regular expression: {fault}"),
                    null => ModuleSelector.OfPattern(pattern),
                };
            case JsonTokenType.StartArray:
                return ModuleSelector.OfNames(ReadNames(ref reader));
            default:
                throw new JsonException(Forms);
        }
    }

    private static List<string> ReadNames(ref Utf8JsonReader reader)
    {
        var names = new List<string>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            var name = reader.TokenType == JsonTokenType.String ? reader.GetString() : null;
            names.Add(string.IsNullOrWhiteSpace(name) ? throw new JsonException("must hold module names only, such as [\"q_proj\", \"v_proj\"]") : name);
        }

        return names.Count > 0 ? names : throw new JsonException("must name at least one module, such as [\"q_proj\", \"v_proj\"]");
    }

    public override void Write(Utf8JsonWriter writer, ModuleSelector value, JsonSerializerOptions options)
    {
        if (value.Names is { } names)
        {
            JsonSerializer.Serialize(writer, names, options);
            return;
        }

        writer.WriteStringValue(value.IsAllLinear ? "all-linear" : value.Pattern);
    }
}
