using System.Globalization;
using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>Starting from a saved adapter: what its folder and the spec say together.</summary>
internal static class SavedAdapter
{
    private static readonly LoraConfig Defaults = new();

    /// <summary>
    /// The saved structure, where the spec leaves a member at its default or says the same. Dropout is no structure: the spec's counts
    /// when it sets one.
    /// </summary>
    /// <exception cref="TrainingException">Spec and folder contradict each other; the message names both values.</exception>
    public static LoraConfig Reconcile(LoraConfig spec, LoraConfig saved, ModelConfig model)
    {
        var plan = LoraPlan.Create(saved with { From = null }, model);
        Same(spec.Rank, Defaults.Rank, saved.Rank, "rank");
        Same(spec.Alpha, Defaults.Alpha, saved.Alpha, "alpha");
        Same(spec.UseRslora, Defaults.UseRslora, saved.UseRslora, "use_rslora");
        Same(spec.Bias, Defaults.Bias, saved.Bias, "bias");
        if (spec.RankPattern.Count > 0 && !SameMap(spec.RankPattern, saved.RankPattern))
        {
            throw Contradiction("rank_pattern", Text(spec.RankPattern), Text(saved.RankPattern));
        }

        if (spec.AlphaPattern.Count > 0 && !SameMap(spec.AlphaPattern, saved.AlphaPattern))
        {
            throw Contradiction("alpha_pattern", Text(spec.AlphaPattern), Text(saved.AlphaPattern));
        }

        // Selectors are compared by what they select: a list, an expression and all-linear may mean the same layers.
        if (spec.TargetModules != Defaults.TargetModules || spec.ExcludeModules is not null)
        {
            var wanted = LoraPlan.Create(saved with { TargetModules = spec.TargetModules, ExcludeModules = spec.ExcludeModules, From = null }, model);
            if (!wanted.Layers.Select(layer => layer.Name).SequenceEqual(plan.Layers.Select(layer => layer.Name)))
            {
                throw Contradiction("target_modules", spec.TargetModules.ToString(), saved.TargetModules.ToString());
            }
        }

        if (spec.ModulesToSave.Count > 0)
        {
            var wanted = LoraPlan.Create(saved with { ModulesToSave = spec.ModulesToSave, From = null }, model);
            if (!wanted.FullWeights.SequenceEqual(plan.FullWeights))
            {
                throw Contradiction(
                    "modules_to_save", string.Join(", ", spec.ModulesToSave), saved.ModulesToSave.Count == 0 ? "none" : string.Join(", ", saved.ModulesToSave));
            }
        }

        return saved with { From = spec.From, Dropout = spec.Dropout == Defaults.Dropout ? saved.Dropout : spec.Dropout };
    }

    private static void Same<T>(T spec, T otherwise, T saved, string name)
        where T : notnull
    {
        if (!spec.Equals(otherwise) && !spec.Equals(saved))
        {
            throw Contradiction(name, Text(spec), Text(saved));
        }
    }

    private static TrainingException Contradiction(string name, string spec, string saved) => TrainingException.InvalidSpec(
        $"The spec sets {name} to {spec}, the adapter in 'from' was saved with {saved}; leave {name} out to take the saved value.",
        $"adapter.{name}");

    private static bool SameMap<T>(IReadOnlyDictionary<string, T> left, IReadOnlyDictionary<string, T> right) =>
        left.Count == right.Count && left.All(entry => right.TryGetValue(entry.Key, out var value) && EqualityComparer<T>.Default.Equals(value, entry.Value));

    private static string Text<T>(T value)
        where T : notnull => Convert.ToString(value, CultureInfo.InvariantCulture)!;

    private static string Text<T>(IReadOnlyDictionary<string, T> map) =>
        map.Count == 0 ? "none" : string.Join(", ", map.Select(entry => $"{entry.Key}: {entry.Value}"));
}
