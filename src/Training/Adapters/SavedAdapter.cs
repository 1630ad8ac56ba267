using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>Starting from a saved adapter: what its folder and the spec say together.</summary>
internal static class SavedAdapter
{
    private const string Type = "type";
    private const string Targets = "target_modules";
    private const string Excluded = "exclude_modules";
    private const string Saved = "modules_to_save";

    private static readonly JsonSerializerOptions Plain = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>
    /// The saved structure, where the spec leaves a member at its default or says the same. Members that are <see cref="TrainingOnlyAttribute"/>
    /// are no structure: the spec's count when it sets them.
    /// </summary>
    /// <exception cref="TrainingException">Spec and folder contradict each other; the message names both values.</exception>
    public static LayerAdapterConfig Reconcile(LayerAdapterConfig spec, LayerAdapterConfig saved, ModelConfig model)
    {
        var (wanted, found) = (Members(spec), Members(saved));
        if (spec.GetType() != saved.GetType())
        {
            throw SavedByAnother((string)wanted[Type]!, (string)found[Type]!);
        }

        var plan = LayerPlan.Create(saved with { From = null }, model);
        var defaults = Members((LayerAdapterConfig)Activator.CreateInstance(spec.GetType())!);
        var result = found.DeepClone().AsObject();
        foreach (var property in SpecJson.Options.GetTypeInfo(spec.GetType()).Properties.Where(property => wanted.ContainsKey(property.Name)))
        {
            var name = property.Name;
            if (name is Targets or Excluded or Saved or "from" || JsonNode.DeepEquals(wanted[name], defaults[name]))
            {
                continue;
            }

            if (property.AttributeProvider!.IsDefined(typeof(TrainingOnlyAttribute), inherit: true))
            {
                result[name] = wanted[name]?.DeepClone();
            }
            else if (!JsonNode.DeepEquals(wanted[name], found[name]))
            {
                throw Contradiction(name, Text(wanted[name]), Text(found[name]));
            }
        }

        // Selectors are compared by what they select: a list, an expression and all-linear may mean the same layers.
        if (!JsonNode.DeepEquals(wanted[Targets], defaults[Targets]) || spec.ExcludeModules is not null)
        {
            var other = LayerPlan.Create(saved with { TargetModules = spec.TargetModules, ExcludeModules = spec.ExcludeModules, From = null }, model);
            if (!other.Layers.SequenceEqual(plan.Layers))
            {
                throw Contradiction(Targets, spec.TargetModules.ToString(), saved.TargetModules.ToString());
            }
        }

        if (spec.ModulesToSave.Count > 0)
        {
            var other = LayerPlan.Create(saved with { ModulesToSave = spec.ModulesToSave, From = null }, model);
            if (!other.FullWeights.SequenceEqual(plan.FullWeights))
            {
                throw Contradiction(
                    Saved, string.Join(", ", spec.ModulesToSave), saved.ModulesToSave.Count == 0 ? "none" : string.Join(", ", saved.ModulesToSave));
            }
        }

        return result.Deserialize<AdapterConfig>(SpecJson.Options) is LayerAdapterConfig config
            ? config with { From = spec.From, TargetModules = saved.TargetModules, ExcludeModules = saved.ExcludeModules }
            : throw new InvalidOperationException("A method on layers did not come back as one.");
    }

    /// <inheritdoc cref="Reconcile(LayerAdapterConfig, LayerAdapterConfig, ModelConfig)"/>
    public static VirtualTokensConfig Reconcile(VirtualTokensConfig spec, VirtualTokensConfig saved)
    {
        var isSet = spec.NumVirtualTokens != ((VirtualTokensConfig)Activator.CreateInstance(spec.GetType())!).NumVirtualTokens;
        return isSet && spec.NumVirtualTokens != saved.NumVirtualTokens
            ? throw Contradiction(
                "num_virtual_tokens", spec.NumVirtualTokens.ToString(CultureInfo.InvariantCulture), saved.NumVirtualTokens.ToString(CultureInfo.InvariantCulture))
            : saved with { From = spec.From };
    }

    /// <summary>What to say where the folder is of another method than the spec.</summary>
    public static TrainingException SavedByAnother(string spec, string saved) => TrainingException.InvalidSpec(
        $"The spec's adapter is {spec}, the adapter in 'from' was saved by {saved}; set adapter.type to {saved}.", "adapter.type");

    private static JsonObject Members(LayerAdapterConfig config) =>
        JsonSerializer.SerializeToNode<AdapterConfig>(config, SpecJson.Options)!.AsObject();

    private static TrainingException Contradiction(string name, string spec, string saved) => TrainingException.InvalidSpec(
        $"The spec sets {name} to {spec}, the adapter in 'from' was saved with {saved}; leave {name} out to take the saved value.",
        $"adapter.{name}");

    private static string Text(JsonNode? value) => value switch
    {
        null => "null",
        JsonObject { Count: 0 } => "none",
        JsonObject map => string.Join(", ", map.Select(entry => $"{entry.Key}: {Text(entry.Value)}")),
        JsonValue text when text.GetValueKind() == JsonValueKind.String => text.GetValue<string>(),
        _ => value.ToJsonString(Plain),
    };
}
