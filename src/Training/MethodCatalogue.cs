using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;

namespace TrainingService.Training;

/// <summary>One method that a spec can choose.</summary>
/// <param name="Family">Path of the member that chooses it: <c>objective</c>, <c>adapter</c>, <c>optimizer</c> or <c>schedule.lr_scheduler</c>.</param>
/// <param name="Name">What is written there (as <c>type</c>, where the member is an object).</param>
/// <param name="Paper">Authors, year and title of its source; null when it has no single one.</param>
/// <param name="Arxiv">Number of the paper on arXiv.</param>
/// <param name="Parameters">How many numbers it trains, as a formula; null where that is no question.</param>
/// <param name="Schema">JSON schema of the member when it chooses this method.</param>
/// <param name="Defaults">The member with every default written out.</param>
/// <param name="Documentation">Page in the repository.</param>
public sealed record Method(
    string Family, string Name, string Title, string Summary, string GoodFor, string? Paper, string? Arxiv, string? Parameters,
    JsonObject Schema, JsonNode Defaults, string Documentation);

/// <summary>Every method of every family, read from the registries on the families' base records.</summary>
public static class MethodCatalogue
{
    /// <summary>In the order of the spec, then of the registries. The JSON in it must not be changed; write a copy.</summary>
    public static IReadOnlyList<Method> All { get; } = [.. OfMembers(typeof(TrainingSpec), "")];

    private static IEnumerable<Method> OfMembers(Type type, string path) =>
        from property in SpecJson.Options.GetTypeInfo(type).Properties
        from method in OfMember(property.PropertyType, SpecPath.Member(path, property.Name))
        select method;

    private static IEnumerable<Method> OfMember(Type type, string path)
    {
        var info = SpecJson.Options.GetTypeInfo(type);
        if (info.PolymorphismOptions is { } family)
        {
            return family.DerivedTypes.Select(derived => OfRecord(path, type, derived.DerivedType, (string)derived.TypeDiscriminator!));
        }

        if (type.IsEnum)
        {
            return type.GetFields(BindingFlags.Public | BindingFlags.Static)
                .Where(field => field.IsDefined(typeof(MethodAttribute)))
                .Select(field => OfName(path, field));
        }

        return info.Kind == JsonTypeInfoKind.Object ? OfMembers(type, path) : [];
    }

    private static Method OfRecord(string path, Type family, Type record, string name)
    {
        var schema = SpecJson.SchemaOf(family)["oneOf"]!.AsArray()
            .Single(choice => (string?)choice!["properties"]!["type"]!["const"] == name)!.DeepClone().AsObject();
        schema.Insert(0, "type", "object");
        schema["required"] = new JsonArray("type");
        var defaults = JsonSerializer.SerializeToNode(Activator.CreateInstance(record), family, SpecJson.Options)!;
        return Describe(record, path, name, schema, defaults, name);
    }

    private static Method OfName(string path, FieldInfo field)
    {
        var name = SpecJson.Options.PropertyNamingPolicy!.ConvertName(field.Name);
        return Describe(field, path, name, new JsonObject { ["const"] = name }, JsonValue.Create(name), path[(path.LastIndexOf('.') + 1)..]);
    }

    private static Method Describe(MemberInfo declaration, string path, string name, JsonObject schema, JsonNode defaults, string page)
    {
        var about = declaration.GetCustomAttribute<MethodAttribute>()
            ?? throw new InvalidOperationException($"{declaration.Name} is registered and has no [Method].");
        return new(
            path, name, about.Title, about.Summary, about.GoodFor, about.Paper, about.Arxiv, about.Parameters, schema, defaults, $"docs/methods/{page}.md");
    }
}
