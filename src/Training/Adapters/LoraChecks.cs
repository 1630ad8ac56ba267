using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>What is wrong with a <see cref="LoraConfig"/> for one model, all of it at once. Needs no tensors.</summary>
public static class LoraChecks
{
    private const string Path = "adapter";

    public static IReadOnlyList<SpecError> Of(LoraConfig config, ModelConfig model)
    {
        var faults = Faults(config).ToList();
        if (faults.Count > 0)
        {
            return faults;
        }

        var linears = LoraPlan.LinearsOf(model);
        var names = linears.Select(linear => linear.Name).ToList();
        var selected = TargetSelection.Select(config, linears);
        var full = LoraPlan.FullWeightsOf(config, model).Select(LoraPlan.ModuleOf).ToHashSet();
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
        var adapted = layers.ConvertAll(layer => layer.Name);
        return
        [
            .. Twice(config, selected.Where(layer => full.Contains(layer.Name))),
            .. layers.Count == 0 ? Nothing() : [],
            .. Keys(config.RankPattern.Keys, adapted, "rank_pattern"),
            .. Keys(config.AlphaPattern.Keys, adapted, "alpha_pattern"),
            .. Ranks(config, layers),
        ];
    }

    /// <summary>What no model could be asked with. A spec was checked for it when it was read, a saved adapter's config was not.</summary>
    private static IEnumerable<SpecError> Faults(LoraConfig config)
    {
        (string Member, string Pattern)[] patterns =
        [
            ("target_modules", config.TargetModules.Pattern ?? ""),
            ("exclude_modules", config.ExcludeModules?.Pattern ?? ""),
            .. config.RankPattern.Keys.Select(key => ("rank_pattern", key)),
            .. config.AlphaPattern.Keys.Select(key => ("alpha_pattern", key)),
        ];
        foreach (var (member, pattern) in patterns)
        {
            if (ModulePattern.Fault(pattern) is { } fault)
            {
                yield return Error(member, $"holds '{SpecPath.Shorten(pattern)}', which is not a valid regular expression: {fault}", SpecErrorCodes.InvalidValue);
            }
        }

        foreach (var (member, rank) in config.RankPattern.Values.Select(rank => ("rank_pattern", rank)).Prepend(("rank", config.Rank)))
        {
            if (rank < 1)
            {
                yield return Error(member, $"is {rank}; a rank must be at least 1.", SpecErrorCodes.OutOfRange);
            }
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

    private static IEnumerable<SpecError> Saved(LoraConfig config, ModelConfig model)
    {
        var modules = LoraPlan.ModulesOf(model);
        foreach (var (index, name) in config.ModulesToSave.Index())
        {
            var path = SpecPath.Item(SpecPath.Member(Path, "modules_to_save"), index);
            if (model.TiesHead && TargetSelection.Means(LoraPlan.OutputHead, name))
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

    private static IEnumerable<SpecError> Twice(LoraConfig config, IEnumerable<SelectedLinear> layers) =>
        config.TargetModules.IsAllLinear ? [] : layers.Take(1).Select(layer => Error(
            "modules_to_save",
            $"and adapter.target_modules both select layer '{layer.Name}'; name it in one of them.",
            SpecErrorCodes.Conflict));

    private static IEnumerable<SpecError> Nothing() =>
    [
        Error("exclude_modules", "and adapter.modules_to_save leave no layer to adapt; take a name out of them.", SpecErrorCodes.Conflict),
    ];

    private static IEnumerable<SpecError> Keys(IEnumerable<string> keys, IReadOnlyList<string> layers, string member) => keys
        .Where(key => !layers.Any(layer => ModulePattern.MatchesKey(key, layer)))
        .Select(key => Unknown(key, layers, SpecPath.Member(SpecPath.Member(Path, member), key)));

    /// <summary>One error for the rank and one for each key of the pattern: the first layer that is too small stands for the others.</summary>
    private static IEnumerable<SpecError> Ranks(LoraConfig config, IEnumerable<SelectedLinear> layers) =>
        from layer in layers
        where layer.Rank > Math.Min(layer.In, layer.Out)
        let key = config.RankPattern.Keys.FirstOrDefault(key => ModulePattern.MatchesKey(key, layer.Name))
        group layer by key into tooSmall
        let path = tooSmall.Key is { } key
            ? SpecPath.Member(SpecPath.Member(Path, "rank_pattern"), key)
            : SpecPath.Member(Path, "rank")
        let layer = tooSmall.MinBy(layer => Math.Min(layer.In, layer.Out))
        let more = tooSmall.Count() > 1 ? $" (and {tooSmall.Count() - 1} more layers allow less than {layer.Rank})" : ""
        select new SpecError(
            path,
            $"{path} is {layer.Rank}, larger than layer '{layer.Name}' allows, whose weight is {layer.Out} x {layer.In}{more}; "
            + $"use at most {Math.Min(layer.In, layer.Out)}, or give that layer its own rank in adapter.rank_pattern.",
            SpecErrorCodes.RankTooLarge);

    private static SpecError Unknown(string name, IReadOnlyList<string> modules, string path)
    {
        if (TargetSelection.Means(LoraPlan.OutputHead, name))
        {
            return new(
                path,
                $"{path} names the output head, which cannot have low-rank factors here; put lm_head into adapter.modules_to_save to train it in full.",
                SpecErrorCodes.UnknownModule);
        }

        var endings = modules.Select(module => module[(module.LastIndexOf('.') + 1)..]).Distinct()
            .Where(ending => !ending.All(char.IsAsciiDigit))
            .Order(StringComparer.Ordinal).ToList();
        var near = NearestName.Of(name, endings) is { } meant ? $"did you mean {meant}? There are " : "there are ";
        return new(
            path, $"{path} is '{SpecPath.Shorten(name)}', which no module of this model matches; {near}{string.Join(", ", endings)}.", SpecErrorCodes.UnknownModule);
    }

    private static SpecError Error(string member, string predicate, string code) =>
        new(SpecPath.Member(Path, member), $"{SpecPath.Member(Path, member)} {predicate}", code);
}
