using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using TrainingService.Training.Adapters;

namespace TrainingService.Training.Checkpoints;

/// <summary><c>adapter_config.json</c> of the methods that are no relatives of LoRA: their members under PEFT's names.</summary>
internal static class PeftFields
{
    /// <summary>Fields of every PEFT configuration that neither change what is computed nor are read here.</summary>
    internal static readonly HashSet<string> Neutral =
    [
        "auto_mapping", "base_model_name_or_path", "inference_mode", "layers_pattern", "peft_type", "peft_version", "revision", "runtime_config",
        "task_type",
    ];

    /// <summary>Every registered method that is saved as an adapter, by its name in <c>peft_type</c>; LoRA's relatives share one and are told apart elsewhere.</summary>
    private static readonly Dictionary<string, JsonDerivedTypeAttribute> Kinds = typeof(AdapterConfig).GetCustomAttributes<JsonDerivedTypeAttribute>()
        .Where(method => method.DerivedType != typeof(FullConfig) && !method.DerivedType.IsSubclassOf(typeof(LowRankConfig)))
        .ToDictionary(method => KindOf(method.DerivedType, (string)method.TypeDiscriminator!));

    public static bool Knows(string kind) => Kinds.ContainsKey(kind);

    /// <summary>The document's fields, but for those that all methods have.</summary>
    public static JsonObject Write(AdapterConfig config)
    {
        var type = config.GetType();
        var fields = new JsonObject { ["peft_type"] = KindOf(type, config.Name) };
        foreach (var constant in type.GetCustomAttributes<PeftConstantAttribute>())
        {
            fields[constant.Name] = JsonNode.Parse(constant.Json);
        }

        var members = JsonSerializer.SerializeToNode<AdapterConfig>(config, SpecJson.Options)!.AsObject();
        foreach (var (field, member) in MembersOf(type))
        {
            fields[field] = members[member]?.DeepClone();
        }

        config.ToPeft(fields);
        return fields;
    }

    /// <summary>The choice that a document stands for.</summary>
    /// <exception cref="TrainingException">It has a field that this service does not know, or a value that it does not take.</exception>
    public static AdapterConfig Read(string kind, JsonElement root)
    {
        var method = Kinds[kind];
        var type = method.DerivedType;
        var members = MembersOf(type).ToDictionary(member => member.Field);
        var constants = type.GetCustomAttributes<PeftConstantAttribute>().ToDictionary(constant => constant.Name, constant => JsonNode.Parse(constant.Json));
        var spec = new JsonObject { ["type"] = (string)method.TypeDiscriminator! };
        var fields = JsonNode.Parse(root.GetRawText())!.AsObject();
        ((AdapterConfig)Activator.CreateInstance(type)!).FromPeft(fields, spec);
        foreach (var (name, value) in fields.Where(field => !Neutral.Contains(field.Key)))
        {
            if (members.TryGetValue(name, out var member))
            {
                if (value is not null)
                {
                    spec[member.Member] = value.DeepClone();
                }
            }
            else if (!(constants.TryGetValue(name, out var constant) ? JsonNode.DeepEquals(constant, value) : IsOff(name, value)))
            {
                throw PeftConfig.Refuse(
                    name, PeftConfig.Short(root.GetProperty(name)), "this feature is not supported; train the adapter without it or merge it in PEFT");
            }
        }

        var reader = new SpecReader(SpecJson.Options);
        using var document = JsonDocument.Parse(spec.ToJsonString());
        return (AdapterConfig?)reader.Read(document.RootElement, typeof(AdapterConfig)) ?? throw TrainingException.InvalidData(
            $"{PeftConfig.FileName} cannot be used: {reader.Errors[0].Message}", $"{PeftConfig.FileName}:{reader.Errors[0].Path}");
    }

    // Biases that do not train are a feature that is off, in PEFT's words.
    private static bool IsOff(string name, JsonNode? value) =>
        PeftConfig.IsOff(JsonSerializer.SerializeToElement(value)) || (name == "bias" && JsonNode.DeepEquals(value, "none"));

    private static IEnumerable<(string Field, string Member)> MembersOf(Type type) =>
        from property in SpecJson.Options.GetTypeInfo(type).Properties
        where property.Name is not ("from" or "type")
        let named = property.AttributeProvider?.GetCustomAttributes(typeof(PeftNameAttribute), true).Cast<PeftNameAttribute>().FirstOrDefault()
        let field = named is null ? property.Name : named.Name
        where field is not null || !type.IsDefined(typeof(PeftTypeAttribute))   // PEFT stumbles over fields that it does not know
        select (field ?? property.Name, property.Name);

    private static string KindOf(Type type, string name) => type.GetCustomAttribute<PeftTypeAttribute>()?.Name ?? name.ToUpperInvariant();
}
