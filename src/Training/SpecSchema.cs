using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Schema;
using System.Text.Json.Serialization.Metadata;

namespace TrainingService.Training;

/// <summary>JSON schema (2020-12) of spec records: the serializer's own, plus descriptions, bounds and defaults from the declarations.</summary>
internal static class SpecSchema
{
    public static JsonObject Of(Type type)
    {
        var options = new JsonSchemaExporterOptions { TreatNullObliviousAsNonNullable = true, TransformSchemaNode = Describe };
        return (JsonObject)SpecJson.Options.GetJsonSchemaAsNode(type, options);
    }

    private static JsonObject Describe(JsonSchemaExporterContext context, JsonNode schema)
    {
        var node = schema as JsonObject ?? [];
        if (context.TypeInfo.Type.GetCustomAttribute<WireFormAttribute>() is { } form)
        {
            return FormOf(context, form);
        }

        // Exactly one, since the types differ; but what describes an object holds of null, too, and then of every alternative.
        if (context.TypeInfo.PolymorphismOptions is not null && context.PropertyInfo?.IsSetNullable != true && node.Remove("anyOf", out var alternatives))
        {
            node["oneOf"] = alternatives;
        }

        if (context.TypeInfo.Kind == JsonTypeInfoKind.Object && context.TypeInfo.PolymorphismOptions is null)
        {
            DescribeMembers(node, context.TypeInfo);
        }

        return node;
    }

    private static JsonObject FormOf(JsonSchemaExporterContext context, WireFormAttribute form)
    {
        var alternatives = JsonNode.Parse(form.Schema)!.AsArray();
        if (context.PropertyInfo?.IsSetNullable == true)
        {
            alternatives.Add(new JsonObject { ["type"] = "null" });
        }

        return new JsonObject { ["anyOf"] = alternatives };
    }

    private static void DescribeMembers(JsonObject node, JsonTypeInfo type)
    {
        var title = type.Type.GetCustomAttribute<MethodAttribute>()?.Title;
        if (title is not null)
        {
            node.Insert(0, "title", title);
        }

        var defaults = type.CreateObject!();
        foreach (var property in type.Properties)
        {
            var member = node["properties"]![property.Name]!.AsObject();
            foreach (var attribute in property.AttributeProvider!.GetCustomAttributes(true))
            {
                Describe(member, attribute);
            }

            if (!property.IsRequired)
            {
                member["default"] = JsonSerializer.SerializeToNode(property.Get!(defaults), property.PropertyType, SpecJson.Options);
            }
        }
    }

    private static void Describe(JsonObject member, object attribute)
    {
        switch (attribute)
        {
            case DescriptionAttribute description:
                member.Insert(0, "description", description.Description);
                break;
            case RangeAttribute range:
                Bound(member, range.Minimum, range.Maximum, range.MaximumIsExclusive);
                break;
            case ItemRangeAttribute range:
                Bound((member["items"] ?? member["additionalProperties"])!.AsObject(), range.Minimum, range.Maximum, range.MaximumIsExclusive);
                break;
            case AllowedItemsAttribute allowed:
                member["items"]!.AsObject()["enum"] = new JsonArray([.. allowed.Values.Select(value => JsonValue.Create(value))]);
                break;
            case LengthAttribute length:
                member["minItems"] = length.MinimumLength;
                member["maxItems"] = length.MaximumLength;
                break;
            case RequiredAttribute:
                member["minLength"] = 1;
                break;
            default:
                break;   // attributes of the compiler
        }
    }

    private static void Bound(JsonObject number, object minimum, object maximum, bool maximumIsExclusive)
    {
        number["minimum"] = JsonValue.Create(minimum);
        number[maximumIsExclusive ? "exclusiveMaximum" : "maximum"] = JsonValue.Create(maximum);
    }
}
