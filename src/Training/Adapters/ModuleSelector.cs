using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;

namespace TrainingService.Training.Adapters;

/// <summary>Selects modules by name, as Hugging Face PEFT does.</summary>
/// <remarks>
/// On the wire: a list of names (a module matches when its name equals one or ends in <c>.</c> and one), a string that is a regular
/// expression for the whole name, or <c>all-linear</c>.
/// </remarks>
[JsonConverter(typeof(ModuleSelectorConverter))]
public sealed record ModuleSelector
{
    /// <summary>Every linear layer but the output head.</summary>
    public static readonly ModuleSelector AllLinear = new() { IsAllLinear = true };

    private static readonly TimeSpan MatchTimeout = TimeSpan.FromSeconds(1);

    public bool IsAllLinear { get; private init; }

    public IReadOnlyList<string>? Names { get; private init; }

    public string? Pattern { get; private init; }

    public static ModuleSelector OfNames(IReadOnlyList<string> names) => new() { Names = names };

    public static ModuleSelector OfPattern(string pattern) => new() { Pattern = pattern };

    /// <summary>Whether the module called <paramref name="name"/> is selected. <c>all-linear</c> selects every name that it is asked.</summary>
    public bool Selects(string name) =>
        IsAllLinear
        || (Names?.Any(suffix => name == suffix || name.EndsWith("." + suffix, StringComparison.Ordinal)) ?? false)
        || (Pattern is not null && Regex.IsMatch(name, $"^(?:{Pattern})$", RegexOptions.CultureInvariant, MatchTimeout));

    public override string ToString() => IsAllLinear ? "all-linear" : Pattern ?? $"[{string.Join(", ", Names ?? [])}]";

    public bool Equals(ModuleSelector? other) => other is not null && ToString() == other.ToString();

    public override int GetHashCode() => ToString().GetHashCode(StringComparison.Ordinal);
}

internal sealed class ModuleSelectorConverter : JsonConverter<ModuleSelector>
{
    public override ModuleSelector Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        switch (reader.TokenType)
        {
            case JsonTokenType.String when reader.GetString() == "all-linear":
                return ModuleSelector.AllLinear;
            case JsonTokenType.String:
                var pattern = reader.GetString()!;
                try
                {
                    _ = new Regex(pattern);
                }
                catch (ArgumentException error)
                {
                    throw new JsonException($"is not a valid regular expression: {error.Message}", error);
                }

                return ModuleSelector.OfPattern(pattern);
            case JsonTokenType.StartArray:
                var names = JsonSerializer.Deserialize<string[]>(ref reader, options)!;
                return names.Length > 0 && names.All(name => !string.IsNullOrWhiteSpace(name))
                    ? ModuleSelector.OfNames(names)
                    : throw new JsonException("must name at least one module, such as [\"q_proj\", \"v_proj\"]");
            default:
                throw new JsonException("must be a list of names, a regular expression, or \"all-linear\"");
        }
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
