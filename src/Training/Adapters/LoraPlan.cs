using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>What a <see cref="LoraConfig"/> means for one model: which layers, at which rank, and what else trains. Needs no tensors.</summary>
/// <param name="Layers">In the model's order.</param>
/// <param name="Biases">Checkpoint names of the biases that train, those of <paramref name="FullWeights"/> left out.</param>
/// <param name="FullWeights">Checkpoint names of the weights of <see cref="LoraConfig.ModulesToSave"/>.</param>
public sealed record LoraPlan(
    IReadOnlyList<SelectedLinear> Layers, IReadOnlyList<string> Biases, IReadOnlyList<string> FullWeights, long TrainableParameters)
{
    /// <summary>The one linear layer that <c>all-linear</c> leaves out and that cannot have factors.</summary>
    public const string OutputHead = "lm_head";

    private const string WeightSuffix = ".weight";
    private const string BiasSuffix = ".bias";

    /// <exception cref="TrainingException">A name that selects nothing, or a rank that a matrix does not have; <c>Param</c> is its JSON path.</exception>
    public static LoraPlan Create(LoraConfig config, ModelConfig model)
    {
        var linears = model.Weights
            .Where(weight => weight.IsLinear && weight.Name != OutputHead + WeightSuffix)
            .Select(weight => new LinearShape(ModuleOf(weight.Name), Out: weight.Shape[0], In: weight.Shape[1]))
            .ToList();
        var names = linears.ConvertAll(linear => linear.Name);
        CheckSelector(config.TargetModules, names, "adapter.target_modules");
        if (config.ExcludeModules is { } excluded)
        {
            CheckSelector(excluded, names, "adapter.exclude_modules");
        }

        var fullWeights = FullWeightsOf(config, model);
        var fullModules = fullWeights.Select(ModuleOf).ToHashSet();
        var layers = TargetSelection.Select(config, linears).ToList();
        if (!config.TargetModules.IsAllLinear && layers.Find(layer => fullModules.Contains(layer.Name)) is { } twice)
        {
            throw TrainingException.InvalidSpec(
                $"Layer '{twice.Name}' is in both target_modules and modules_to_save; name it in one of them.", "adapter.modules_to_save");
        }

        layers.RemoveAll(layer => fullModules.Contains(layer.Name));
        if (layers.Count == 0)
        {
            throw TrainingException.InvalidSpec(
                "exclude_modules and modules_to_save leave no layer to adapt; take a name out of them.", "adapter.exclude_modules");
        }

        CheckPatterns(config.RankPattern.Keys, layers.ConvertAll(layer => layer.Name), "adapter.rank_pattern");
        CheckPatterns(config.AlphaPattern.Keys, layers.ConvertAll(layer => layer.Name), "adapter.alpha_pattern");
        layers.ForEach(layer => CheckRank(config, layer));

        var biases = BiasesOf(config, model, layers, fullWeights);
        var sizes = model.Weights.ToDictionary(weight => weight.Name, weight => weight.Count);
        var trainable = layers.Sum(layer => layer.FactorCount) + biases.Concat(fullWeights).Sum(name => sizes[name]);
        return new LoraPlan(layers, biases, fullWeights, trainable);
    }

    /// <summary>Every module that owns weights, and every module around one, in the model's order.</summary>
    internal static IReadOnlyList<string> ModulesOf(ModelConfig model) =>
        model.Weights.SelectMany(weight => WithParents(ModuleOf(weight.Name))).Distinct().ToList();

    private static void CheckRank(LoraConfig config, SelectedLinear layer)
    {
        var param = layer.Rank == config.Rank ? "adapter.rank" : "adapter.rank_pattern";
        if (layer.Rank < 1)
        {
            throw TrainingException.InvalidSpec($"The rank of layer '{layer.Name}' is {layer.Rank}; it must be at least 1.", param);
        }

        var most = Math.Min(layer.In, layer.Out);
        if (layer.Rank > most)
        {
            throw TrainingException.InvalidSpec(
                $"Rank {layer.Rank} is larger than layer '{layer.Name}' allows, whose weight is {layer.Out} x {layer.In}; "
                + $"use at most {most}, or set its rank in rank_pattern.", param);
        }
    }

    private static List<string> FullWeightsOf(LoraConfig config, ModelConfig model)
    {
        var modules = ModulesOf(model);
        for (var i = 0; i < config.ModulesToSave.Count; i++)
        {
            var name = config.ModulesToSave[i];
            var param = $"adapter.modules_to_save[{i}]";
            if (model.TiesHead && TargetSelection.Means(OutputHead, name))
            {
                throw TrainingException.InvalidSpec(
                    "The output head of this model shares its weights with the embedding; name embed_tokens instead of lm_head.", param);
            }

            if (!modules.Any(module => TargetSelection.Means(name, module)))
            {
                throw Unknown(name, modules, param);
            }
        }

        return model.Weights
            .Select(weight => weight.Name)
            .Where(weight => WithParents(ModuleOf(weight))
                .Any(module => config.ModulesToSave.Any(name => TargetSelection.Means(name, module))))
            .ToList();
    }

    private static List<string> BiasesOf(
        LoraConfig config, ModelConfig model, IReadOnlyList<SelectedLinear> layers, IReadOnlyList<string> fullWeights)
    {
        var adapted = layers.Select(layer => layer.Name + BiasSuffix).ToHashSet();
        var inFull = fullWeights.ToHashSet();
        return model.Weights
            .Select(weight => weight.Name)
            .Where(name => name.EndsWith(BiasSuffix, StringComparison.Ordinal) && !inFull.Contains(name))
            .Where(name => config.Bias switch
            {
                BiasTraining.None => false,
                BiasTraining.All => true,
                BiasTraining.LoraOnly => adapted.Contains(name),
            })
            .ToList();
    }

    private static void CheckSelector(ModuleSelector selector, IReadOnlyList<string> linears, string param)
    {
        if (selector.Names is { } names)
        {
            for (var i = 0; i < names.Count; i++)
            {
                if (!linears.Any(ModuleSelector.OfNames([names[i]]).Selects))
                {
                    throw Unknown(names[i], linears, $"{param}[{i}]");
                }
            }
        }
        else if (!linears.Any(selector.Selects))
        {
            throw Unknown(selector.ToString(), linears, param);
        }
    }

    private static void CheckPatterns(IEnumerable<string> patterns, IReadOnlyList<string> modules, string param)
    {
        foreach (var pattern in patterns)
        {
            if (ModulePattern.Fault(pattern) is { } fault)
            {
                throw TrainingException.InvalidSpec($"'{pattern}' is not a valid regular expression: {fault}", $"{param}.{pattern}");
            }

            if (!modules.Any(module => ModulePattern.MatchesKey(pattern, module)))
            {
                throw Unknown(pattern, modules, $"{param}.{pattern}");
            }
        }
    }

    private static TrainingException Unknown(string name, IReadOnlyList<string> modules, string param)
    {
        if (TargetSelection.Means(OutputHead, name))
        {
            return TrainingException.InvalidSpec(
                "The output head cannot have low-rank factors here; put lm_head into modules_to_save to train it in full.", param);
        }

        var endings = modules.Select(module => module[(module.LastIndexOf('.') + 1)..]).Distinct()
            .Where(ending => !ending.All(char.IsAsciiDigit))
            .Order(StringComparer.Ordinal).ToList();
        var nearest = endings.MinBy(ending => Distance(name, ending))!;
        return TrainingException.InvalidSpec(
            $"No module of this model matches '{name}'; there are {string.Join(", ", endings)} (nearest: '{nearest}').", param);
    }

    private static string ModuleOf(string weight) => weight[..weight.LastIndexOf('.')];

    private static IEnumerable<string> WithParents(string module)
    {
        for (var end = module.Length; end > 0; end = module.LastIndexOf('.', end - 1))
        {
            yield return module[..end];
        }
    }

    /// <summary>Levenshtein's distance: insertions, deletions and replacements that turn one text into the other.</summary>
    private static int Distance(string left, string right)
    {
        var row = Enumerable.Range(0, right.Length + 1).ToArray();
        for (var i = 1; i <= left.Length; i++)
        {
            var diagonal = row[0];
            row[0] = i;
            for (var j = 1; j <= right.Length; j++)
            {
                var replace = diagonal + (left[i - 1] == right[j - 1] ? 0 : 1);
                diagonal = row[j];
                row[j] = Math.Min(replace, Math.Min(row[j - 1], row[j]) + 1);
            }
        }

        return row[^1];
    }
}
