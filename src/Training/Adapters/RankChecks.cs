namespace TrainingService.Training.Adapters;

/// <summary>What is wrong with the ranks and scales of a <see cref="LowRankConfig"/>.</summary>
internal static class RankChecks
{
    /// <summary>Ranks that no matrix has.</summary>
    public static IEnumerable<SpecError> Faults(LowRankConfig config) =>
        from entry in config.RankPattern.Values.Select(rank => (Member: "rank_pattern", Rank: rank)).Prepend((Member: "rank", config.Rank))
        where entry.Rank < 1
        select LayerChecks.Error(entry.Member, $"is {entry.Rank}; a rank must be at least 1.", SpecErrorCodes.OutOfRange);

    /// <summary>Keys that mean no layer, and ranks above what a matrix has.</summary>
    public static IEnumerable<SpecError> Of(LowRankConfig config, IReadOnlyList<LinearShape> layers)
    {
        string[] names = [.. layers.Select(layer => layer.Name)];
        return
        [
            .. Keys(config.RankPattern.Keys, names, "rank_pattern"),
            .. Keys(config.AlphaPattern.Keys, names, "alpha_pattern"),
            .. Ranks(config, layers.Select(config.Select)),
        ];
    }

    /// <summary>A rank that is the same for all layers: the first that is too small for it.</summary>
    public static IEnumerable<SpecError> Of(int rank, IReadOnlyList<LinearShape> layers, string member = "rank")
    {
        if (layers.Count > 0 && layers.MinBy(layer => Math.Min(layer.In, layer.Out)) is var small && rank > Math.Min(small!.In, small.Out))
        {
            yield return LayerChecks.Error(
                member,
                $"is {rank}, larger than layer '{small.Name}' allows, whose weight is {small.Out} x {small.In}; use at most {Math.Min(small.In, small.Out)}.",
                SpecErrorCodes.RankTooLarge);
        }
    }

    private static IEnumerable<SpecError> Keys(IEnumerable<string> keys, IReadOnlyList<string> layers, string member) => keys
        .Where(key => !layers.Any(layer => ModulePattern.MatchesKey(key, layer)))
        .Select(key => LayerChecks.Unknown(key, layers, SpecPath.Member(SpecPath.Member(LayerChecks.Path, member), key)));

    /// <summary>One error for the rank and one for each key of the pattern: the first layer that is too small stands for the others.</summary>
    private static IEnumerable<SpecError> Ranks(LowRankConfig config, IEnumerable<SelectedLinear> layers) =>
        from layer in layers
        where layer.Rank > Math.Min(layer.In, layer.Out)
        let key = config.RankPattern.Keys.FirstOrDefault(key => ModulePattern.MatchesKey(key, layer.Name))
        group layer by key into tooSmall
        let path = tooSmall.Key is { } key
            ? SpecPath.Member(SpecPath.Member(LayerChecks.Path, "rank_pattern"), key)
            : SpecPath.Member(LayerChecks.Path, "rank")
        let layer = tooSmall.MinBy(layer => Math.Min(layer.In, layer.Out))
        let more = tooSmall.Count() > 1 ? $" (and {tooSmall.Count() - 1} more layers allow less than {layer.Rank})" : ""
        select new SpecError(
            path,
            $"{path} is {layer.Rank}, larger than layer '{layer.Name}' allows, whose weight is {layer.Out} x {layer.In}{more}; "
            + $"use at most {Math.Min(layer.In, layer.Out)}, or give that layer its own rank in adapter.rank_pattern.",
            SpecErrorCodes.RankTooLarge);
}
