using System.Text;
using System.Text.Json.Nodes;

namespace TrainingService.Training.Tests.Spec;

/// <summary>The table of settings on a method's page, made from its schema and its defaults.</summary>
internal static class SettingsTable
{
    public static string Begin(string name) => $"<!-- settings of {name}: generated, run the tests with UPDATE_SCHEMA=1 -->";

    /// <summary>The page with the table between its markers made anew; as it was when it has no markers.</summary>
    public static string Refresh(string page, Method method)
    {
        const string End = "<!-- end of settings -->";
        var start = page.IndexOf(Begin(method.Name), StringComparison.Ordinal);
        var end = start < 0 ? -1 : page.IndexOf(End, start, StringComparison.Ordinal);
        return end < 0 ? page : $"{page[..start]}{Begin(method.Name)}\n{Of(method)}{page[end..]}";
    }

    private static string Of(Method method)
    {
        var members = method.Schema["properties"]?.AsObject().Where(member => member.Key != "type").ToList() ?? [];
        if (members.Count == 0)
        {
            return "None of its own.\n";
        }

        var table = new StringBuilder("| setting | value | default | meaning |\n| --- | --- | --- | --- |\n");
        foreach (var (name, schema) in members)
        {
            var row = schema!.AsObject();
            var value = Escape(string.Join(" or ", Kinds(row)));
            table.Append($"| `{name}` | {value} | `{row["default"]?.ToJsonString(SpecJson.Compact) ?? "null"}` | {Escape((string)row["description"]!)} |\n");
        }

        return table.ToString();
    }

    private static IEnumerable<string> Kinds(JsonObject schema)
    {
        if (schema["const"] is { } constant)
        {
            return [$"`{constant}`"];
        }

        if (schema["enum"] is JsonArray values)
        {
            return values.Select(value => $"`{value}`");
        }

        if (schema["anyOf"] is JsonArray alternatives)
        {
            return alternatives.SelectMany(alternative => alternative!["title"] is { } title ? [Lower((string)title!)] : Kinds(alternative.AsObject()));
        }

        var types = schema["type"] is JsonArray several ? several.Select(type => (string)type!) : [(string)schema["type"]!];
        return types.Select(type => type switch
        {
            "null" => "null",
            "array" => $"list of {string.Join(" or ", Kinds(schema["items"]!.AsObject()))}",
            "object" => $"name → {string.Join(" or ", Kinds(schema["additionalProperties"]!.AsObject()))}",
            "string" => "text",
            "boolean" => "true or false",
            "integer" => "whole number" + Bounds(schema),
            _ => "number" + Bounds(schema),
        });
    }

    private static string Bounds(JsonObject schema) => schema["exclusiveMaximum"] is { } limit
        ? $" from {schema["minimum"]} to below {limit}"
        : schema["minimum"] is { } minimum ? $" from {minimum} to {schema["maximum"]}" : "";

    private static string Lower(string title) => char.ToLowerInvariant(title[0]) + title[1..];

    private static string Escape(string text) => text.Replace("|", "\\|", StringComparison.Ordinal);
}
