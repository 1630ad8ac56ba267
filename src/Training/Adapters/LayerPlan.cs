using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>What a <see cref="LayerAdapterConfig"/> means for one model: which layers, and what else trains. Needs no tensors.</summary>
/// <param name="Layers">In the model's order.</param>
/// <param name="Biases">Checkpoint names of the biases that train, those of <paramref name="FullWeights"/> left out.</param>
/// <param name="FullWeights">Checkpoint names of the weights of <see cref="LayerAdapterConfig.ModulesToSave"/>.</param>
public sealed record LayerPlan(
    IReadOnlyList<LinearShape> Layers, IReadOnlyList<string> Biases, IReadOnlyList<string> FullWeights)
{
    /// <summary>The one linear layer that <c>all-linear</c> leaves out and that cannot be adapted.</summary>
    public const string OutputHead = "lm_head";

    private const string WeightSuffix = ".weight";
    private const string BiasSuffix = ".bias";

    /// <exception cref="TrainingException">A name that selects nothing, or a rank that a matrix does not have; <c>Param</c> is its JSON path.</exception>
    public static LayerPlan Create(LayerAdapterConfig config, ModelConfig model)
    {
        var errors = LayerChecks.Of(config, model);
        return errors.Count > 0 ? throw TrainingException.InvalidSpec(errors[0].Message, errors[0].Path) : Of(config, model);
    }

    /// <summary>The plan of a config that <see cref="LayerChecks"/> has nothing against.</summary>
    internal static LayerPlan Of(LayerAdapterConfig config, ModelConfig model)
    {
        var fullWeights = FullWeightsOf(config, model);
        var fullModules = fullWeights.Select(ModuleOf).ToHashSet();
        var layers = TargetSelection.Select(config, config.Candidates(model)).Where(layer => !fullModules.Contains(layer.Name)).ToList();
        var biases = BiasesOf(config, model, layers, fullWeights);
        return new LayerPlan(layers, biases, fullWeights);
    }

    /// <summary>The linear layers that can be adapted, in the model's order.</summary>
    internal static IReadOnlyList<LinearShape> LinearsOf(ModelConfig model) => model.Weights
        .Where(weight => weight.IsLinear && weight.Name != OutputHead + WeightSuffix)
        .Select(weight => new LinearShape(ModuleOf(weight.Name), Out: weight.Shape[0], In: weight.Shape[1]))
        .ToList();

    /// <summary>Every module that owns weights, and every module around one, in the model's order.</summary>
    internal static IReadOnlyList<string> ModulesOf(ModelConfig model) =>
        model.Weights.SelectMany(weight => WithParents(ModuleOf(weight.Name))).Distinct().ToList();

    /// <summary>Checkpoint names of the weights of all modules that <c>modules_to_save</c> names, and of a score head, which has nothing to start from.</summary>
    internal static IReadOnlyList<string> FullWeightsOf(LayerAdapterConfig config, ModelConfig model) => model.Weights
        .Select(weight => weight.Name)
        .Where(weight => WithParents(ModuleOf(weight))
            .Any(module => config.ModulesToSave.Any(name => TargetSelection.Means(name, module))) || ScoreHead.Owns(weight))
        .ToList();

    private static List<string> BiasesOf(
        LayerAdapterConfig config, ModelConfig model, IReadOnlyList<LinearShape> layers, IReadOnlyList<string> fullWeights)
    {
        var adapted = layers.Select(layer => layer.Name + BiasSuffix).ToHashSet();
        var inFull = fullWeights.ToHashSet();
        return model.Weights
            .Select(weight => weight.Name)
            .Where(name => name.EndsWith(BiasSuffix, StringComparison.Ordinal) && !inFull.Contains(name))
            .Where(name => config.TrainedBiases switch
            {
                BiasTraining.None => false,
                BiasTraining.All => true,
                BiasTraining.LoraOnly => adapted.Contains(name),
            })
            .ToList();
    }

    /// <summary>The module that owns a weight.</summary>
    internal static string ModuleOf(string weight) => weight[..weight.LastIndexOf('.')];

    private static IEnumerable<string> WithParents(string module)
    {
        for (var end = module.Length; end > 0; end = module.LastIndexOf('.', end - 1))
        {
            yield return module[..end];
        }
    }
}
