using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>What is wrong with a <see cref="LayerAdapterConfig"/> for one model, all of it at once. Needs no tensors.</summary>
public static class LayerChecks
{
    internal const string Path = "adapter";

    public static IReadOnlyList<SpecError> Of(LayerAdapterConfig config, ModelConfig model)
    {
        var faults = Faults(config).ToList();
        if (faults.Count > 0)
        {
            return faults;
        }

        var linears = config.Candidates(model);
        var names = linears.Select(linear => linear.Name).ToList();
        var selected = TargetSelection.Select(config, linears);
        var full = LayerPlan.FullWeightsOf(config, model).Select(LayerPlan.ModuleOf).ToHashSet();
        List<SpecError> errors =
        [
            .. Selector(config.TargetModules, names, "target_modules"),
            .. config.ExcludeModules is { } excluded ? Selector(excluded, names, "exclude_modules") : [],
            .. Saved(config, model),
        ];
        if (errors.Count > 0)
        {
            return errors;   // ranks of layers that were not meant would only confuse
        }

        var layers = selected.Where(layer => !full.Contains(layer.Name)).ToList();
        return
        [
            .. Twice(config, selected.Where(layer => full.Contains(layer.Name))),
            .. layers.Count == 0 ? Nothing() : [],
            .. config.CheckLayers(layers),
        ];
    }

    /// <summary>What no model could be asked with. A spec was checked for it when it was read, a saved adapter's config was not.</summary>
    private static IEnumerable<SpecError> Faults(LayerAdapterConfig config)
    {
        (string Member, string Pattern)[] patterns =
        [
            ("target_modules", config.TargetModules.Pattern ?? ""),
            ("exclude_modules", config.ExcludeModules?.Pattern ?? ""),
            .. config.Patterns,
        ];
        foreach (var (member, pattern) in patterns)
        {
            if (ModulePattern.Fault(pattern) is { } fault)
            {
                yield return Error(member, $"holds '{SpecPath.Shorten(pattern)}', which is not a valid regular expression: {fault}", SpecErrorCodes.InvalidValue);
            }
        }

        foreach (var fault in config.Faults)
        {
            yield return fault;
        }
    }

    private static IEnumerable<SpecError> Selector(ModuleSelector selector, IReadOnlyList<string> linears, string member)
    {
        var path = SpecPath.Member(Path, member);
        if (selector.Names is { } names)
        {
            return names.Index()
                .Where(entry => !linears.Any(linear => TargetSelection.Means(entry.Item, linear)))
                .Select(entry => Unknown(entry.Item, linears, SpecPath.Item(path, entry.Index)));
        }

        return linears.Any(selector.Selects) ? [] : [Unknown(selector.ToString(), linears, path)];
    }

    private static IEnumerable<SpecError> Saved(LayerAdapterConfig config, ModelConfig model)
    {
        var modules = LayerPlan.ModulesOf(model);
        foreach (var (index, name) in config.ModulesToSave.Index())
        {
            var path = SpecPath.Item(SpecPath.Member(Path, "modules_to_save"), index);
            if (model.TiesHead && TargetSelection.Means(LayerPlan.OutputHead, name))
            {
                yield return new(
                    path,
                    $"{path} is '{name}', and the output head of this model shares its weights with the embedding; name embed_tokens instead.",
                    SpecErrorCodes.UnknownModule);
            }
            else if (!modules.Any(module => TargetSelection.Means(name, module)))
            {
                yield return Unknown(name, modules, path);
            }
        }
    }

    private static IEnumerable<SpecError> Twice(LayerAdapterConfig config, IEnumerable<LinearShape> layers) =>
        config.TargetModules.IsAllLinear ? [] : layers.Take(1).Select(layer => Error(
            "modules_to_save",
            $"and adapter.target_modules both select layer '{layer.Name}'; name it in one of them.",
            SpecErrorCodes.Conflict));

    private static IEnumerable<SpecError> Nothing() =>
    [
        Error("exclude_modules", "and adapter.modules_to_save leave no layer to adapt; take a name out of them.", SpecErrorCodes.Conflict),
    ];

    internal static SpecError Unknown(string name, IReadOnlyList<string> modules, string path)
    {
        if (TargetSelection.Means(LayerPlan.OutputHead, name))
        {
            return new(
                path,
                $"{path} names the output head, which cannot be adapted here; put lm_head into adapter.modules_to_save to train it in full.",
                SpecErrorCodes.UnknownModule);
        }

        var endings = modules.Select(module => module[(module.LastIndexOf('.') + 1)..]).Distinct()
            .Where(ending => !ending.All(char.IsAsciiDigit))
            .Order(StringComparer.Ordinal).ToList();
        var near = NearestName.Of(name, endings) is { } meant ? $"did you mean {meant}? There are " : "there are ";
        return new(
            path, $"{path} is '{SpecPath.Shorten(name)}', which no module of this model matches; {near}{string.Join(", ", endings)}.", SpecErrorCodes.UnknownModule);
    }

    internal static SpecError Error(string member, string predicate, string code) =>
        new(SpecPath.Member(Path, member), $"{SpecPath.Member(Path, member)} {predicate}", code);
}
