namespace TrainingService.Training.Spectra;

/// <summary>The drawings of a <see cref="SpectraReport"/>.</summary>
internal static class SpectraDrawings
{
    /// <summary>Leading values that a heat map shows of each matrix.</summary>
    private const int HeatMapValues = 64;

    /// <summary>File names and contents. Drawings of ΔW exist only where the report has one.</summary>
    public static IEnumerable<(string Name, string Svg)> Draw(SpectraReport report)
    {
        var layers = report.Layers;
        if (layers.Count == 0)
        {
            yield break;
        }

        yield return ("weight-singular-values.svg", Curves("Singular values of the weights W", layers, layer => layer.Weight));
        yield return ("weight-rank.svg", Ranks("Rank of the weights W, by layer", layers, layer => layer.Weight));
        var changed = layers.Where(layer => layer.Update is not null).ToList();
        if (changed.Count == 0)
        {
            yield return ("weight-heatmap.svg", HeatMap("Leading singular values of the weights W", "σ(W)", layers, layer => layer.Weight));
            yield break;
        }

        yield return ("update-heatmap.svg", HeatMap("Singular values of the updates ΔW", "σ(ΔW)", changed, layer => layer.Update!));
        yield return ("update-singular-values.svg", Curves("Singular values of the updates ΔW", changed, layer => layer.Update!));
        yield return ("update-rank.svg", Ranks("Rank of the updates ΔW, by layer", changed, layer => layer.Update!));
        yield return ("relative-update.svg", Charts.Lines(
            "Size of the updates relative to the weights, by layer", "layer", "‖ΔW‖F / ‖W‖F",
            [new Panel("‖ΔW‖F / ‖W‖F", ByType(changed, layer => layer.RelativeUpdate))], logarithmic: false, TypeLegend(changed)));
    }

    private static string HeatMap(string title, string value, IReadOnlyList<LayerSpectra> layers, Func<LayerSpectra, Spectrum> spectrum) =>
        Charts.HeatMap(
            title, "index of the singular value, largest first", value,
            layers.Select(layer => (layer.Name, spectrum(layer).SingularValues.Take(HeatMapValues).ToArray())).ToList());

    private static string Curves(string title, IReadOnlyList<LayerSpectra> layers, Func<LayerSpectra, Spectrum> spectrum)
    {
        var deepest = Math.Max(1, layers.Max(layer => layer.Layer ?? 0));
        string Colour(int layer) => Palette.Share(0.85 * layer / deepest);
        var panels = layers.GroupBy(layer => layer.Type).Select(type => new Panel(type.Key, type.Select(layer => new Series(
            layer.Name,
            spectrum(layer).SingularValues.Select((value, index) => ((double)(index + 1), value)).ToList(),
            Colour(layer.Layer ?? 0), Legend: null)).ToList())).ToList();
        return Charts.Lines(
            title + ", one curve per layer", "index, largest first", "σ (log scale)", panels, logarithmic: true,
            [("first layer", Colour(0)), ("middle", Colour(deepest / 2)), ("last layer", Colour(deepest))]);
    }

    private static string Ranks(string title, IReadOnlyList<LayerSpectra> layers, Func<LayerSpectra, Spectrum> spectrum) =>
        Charts.Lines(
            title, "layer", "rank",
            [
                new Panel("Stable rank ‖·‖F² / σ₁²", ByType(layers, layer => spectrum(layer).StableRank)),
                new Panel("Effective rank exp(−Σ p ln p)", ByType(layers, layer => spectrum(layer).EffectiveRank)),
            ],
            logarithmic: false, TypeLegend(layers));

    private static List<Series> ByType(IReadOnlyList<LayerSpectra> layers, Func<LayerSpectra, double?> value) =>
        layers.GroupBy(layer => layer.Type).Select((type, index) => new Series(
            type.Key,
            type.Where(layer => layer.Layer is not null && value(layer) is not null)   // the output head stands in no layer
                .Select(layer => ((double)layer.Layer!.Value, value(layer)!.Value)).ToList(),
            Palette.Kind(index), type.Key)).ToList();

    private static List<(string, string)> TypeLegend(IReadOnlyList<LayerSpectra> layers) =>
        layers.GroupBy(layer => layer.Type).Select((type, index) => (Type: type, Colour: Palette.Kind(index)))
            .Where(entry => entry.Type.Any(layer => layer.Layer is not null))
            .Select(entry => (entry.Type.Key, entry.Colour)).ToList();
}
