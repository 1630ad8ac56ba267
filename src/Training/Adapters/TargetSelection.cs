namespace TrainingService.Training.Adapters;

/// <summary>A linear layer that may be adapted.</summary>
/// <param name="Name">Module name, such as <c>model.layers.0.self_attn.q_proj</c>.</param>
/// <param name="Out">Rows of its weight.</param>
/// <param name="In">Columns of its weight.</param>
public sealed record LinearShape(string Name, long Out, long In);

/// <summary>A linear layer with the rank and the scale of its update.</summary>
/// <param name="Alpha">α of the layer.</param>
/// <param name="Scale">What B·A is multiplied by: α/r, or α/√r.</param>
public sealed record SelectedLinear(string Name, long Out, long In, int Rank, double Alpha, double Scale)
{
    /// <summary>Numbers in A [R, in] and B [out, R].</summary>
    public long FactorCount => Rank * (In + Out);
}

/// <summary>Which layers an adapter wraps, and with which ranks. The rules are those of Hugging Face PEFT.</summary>
/// <remarks>
/// The same code decides in the validation of a spec, in the estimate and in the adapter itself; it needs names and shapes only.
/// Of several keys of <c>rank_pattern</c> (or <c>alpha_pattern</c>) that match a layer, the first one written counts.
/// </remarks>
public static class TargetSelection
{
    /// <summary>Selects among <paramref name="linears"/>, in their order.</summary>
    public static IReadOnlyList<LinearShape> Select(LayerAdapterConfig config, IEnumerable<LinearShape> linears) =>
        [.. linears.Where(linear => config.TargetModules.Selects(linear.Name) && !(config.ExcludeModules?.Selects(linear.Name) ?? false))];

    /// <summary>Rank and scale that a choice gives a layer.</summary>
    public static SelectedLinear WithRank(LowRankConfig config, LinearShape linear)
    {
        var rank = ByPattern(config.RankPattern, linear.Name, config.Rank);
        var alpha = ByPattern(config.AlphaPattern, linear.Name, config.Alpha);
        return new(linear.Name, linear.Out, linear.In, rank, alpha, Scale(alpha, rank, config.UseRslora));
    }

    /// <summary>Whether an entry of <c>modules_to_save</c> (or of a list of target modules) means the module: its name, or the end of it.</summary>
    public static bool Means(string entry, string module) =>
        module == entry || module.EndsWith("." + entry, StringComparison.Ordinal);

    /// <summary>α/r; α/√r when rank-stabilised.</summary>
    public static double Scale(double alpha, int rank, bool useRslora) => alpha / (useRslora ? Math.Sqrt(rank) : rank);

    private static T ByPattern<T>(IReadOnlyDictionary<string, T> pattern, string name, T otherwise)
    {
        foreach (var (key, value) in pattern)
        {
            if (ModulePattern.MatchesKey(key, name))
            {
                return value;
            }
        }

        return otherwise;
    }
}
