using TrainingService.Training.Spectra;

namespace TrainingService.Training.Rewards;

/// <summary>The drawings of a <see cref="RewardReport"/>.</summary>
internal static class RewardDrawings
{
    public const string Margins = "margins.svg";
    public const string Reliability = "reliability.svg";
    public const string Length = "length.svg";
    public const string Categories = "categories.svg";

    private const double Left = 74;
    private const double Top = 84;
    private const double PlotHeight = 260;
    private const double PlotWidth = 560;
    private const int MostCategories = 40;

    private static readonly double[] Shares = [0, 0.25, 0.5, 0.75, 1];
    private static readonly string Right = Palette.Kind(0);
    private static readonly string Wrong = Palette.Kind(1);

    /// <summary>File names and contents.</summary>
    public static IEnumerable<(string Name, string Svg)> Draw(RewardReport report)
    {
        yield return (Margins, Histogram(report.Margins));
        yield return (Reliability, Diagram(report.Calibration));
        yield return (Length, ByLength(report.Length));
        if (report.Categories.Count > 0)
        {
            yield return (Categories, ByCategory(report));
        }
    }

    private static string Histogram(Distribution margins)
    {
        var svg = new Svg(Left + PlotWidth + 40, Top + PlotHeight + 66, "Margins: reward of the better answer less that of the worse one");
        Legend(svg, ("model is right", Right), ("model is wrong", Wrong));
        var y = Axis.Over([2, .. margins.Counts.Select(count => (double)count)], Top + PlotHeight, Top, logarithmic: false);   // above 1, which would be a share
        var x = new Axis(margins.Edges[0], margins.Edges[^1], Left, Left + PlotWidth, false);
        Frame(svg, y, "pairs", "margin");
        foreach (var (bin, count) in margins.Counts.Index())
        {
            var (from, to) = (x.Place(margins.Edges[bin]), x.Place(margins.Edges[bin + 1]));
            svg.Rectangle(
                from, y.Place(count), Math.Max(1, to - from - 1), y.From - y.Place(count), margins.Edges[bin + 1] <= 0 ? Wrong : Right,
                Invariant($"{margins.Edges[bin]:G4} to {margins.Edges[bin + 1]:G4}: {count} pairs"));
        }

        // Zero parts right from wrong, so marks are counted from there.
        var every = (margins.Counts.Count + 7) / 8;
        foreach (var edge in margins.Edges.Where(edge => Math.Round(edge / (margins.Edges[1] - margins.Edges[0])) % every == 0))
        {
            svg.Text(x.Place(edge), y.From + 17, Invariant($"{edge:G6}"), 11, "middle", Svg.Quiet);
        }

        return svg.ToString();
    }

    private static string Diagram(RewardCalibration calibration)
    {
        var svg = new Svg(Left + PlotWidth + 40, Top + PlotHeight + 66, Invariant($"Reliability of σ(margin); expected calibration error {100 * calibration.Error:F1} %"));
        Legend(svg, ("share that is right, and the number of pairs", Right), ("where it should be", Wrong));
        var y = new Axis(0, 1, Top + PlotHeight, Top, false);
        var x = new Axis(0.5, 1, Left, Left + PlotWidth, false);
        Frame(svg, y, "share that is right", "confidence of the model, σ(|margin|)");
        foreach (var bin in calibration.Bins.Where(bin => bin.Pairs > 0))
        {
            var (from, to) = (x.Place(bin.From), x.Place(bin.To));
            svg.Rectangle(
                from, y.Place(bin.MeanRight), to - from - 2, y.From - y.Place(bin.MeanRight), Right,
                Invariant($"{bin.Pairs} pairs, confidence {100 * bin.MeanConfidence:F1} %, right in {100 * bin.MeanRight:F1} %"));
            svg.Text((from + to) / 2, y.Place(bin.MeanRight) - 4, Invariant($"{bin.Pairs}"), 10.5, "middle", Svg.Quiet);
        }

        svg.Polyline([(x.From, y.Place(0.5)), (x.To, y.Place(1))], Wrong, "calibrated");
        foreach (var (value, _) in x.Marks())
        {
            svg.Text(x.Place(value), y.From + 17, Invariant($"{100 * value:0} %"), 11, "middle", Svg.Quiet);
        }

        return svg.ToString();
    }

    private static string ByLength(LengthBias length)
    {
        var svg = new Svg(Left + PlotWidth + 40, Top + PlotHeight + 66, "Accuracy by how much longer the better answer is");
        Legend(svg, ("better answer longer, or as long", Right), ("better answer shorter", Wrong));
        var y = new Axis(0, 1, Top + PlotHeight, Top, false);
        Frame(svg, y, "share that is right", "tokens of the better answer less those of the worse one");
        var width = PlotWidth / Math.Max(1, length.Buckets.Count);
        foreach (var (index, bucket) in length.Buckets.Index())
        {
            var x = Left + (index * width);
            var top = y.Place(bucket.Accuracy.Value);
            svg.Rectangle(
                x + 2, top, width - 4, y.From - top, bucket.To < 0 ? Wrong : Right,
                Invariant($"{bucket.From} to {bucket.To} tokens: right in {bucket.Accuracy.Count} of {bucket.Accuracy.Of} pairs"));
            svg.Text(x + (width / 2), top - 4, Invariant($"{bucket.Accuracy.Of}"), 10.5, "middle", Svg.Quiet);
            svg.Text(
                x + (width / 2), y.From + 17, bucket.From == bucket.To ? Invariant($"{bucket.From}") : Invariant($"{bucket.From} … {bucket.To}"), 10, "middle", Svg.Quiet);
        }

        Guessing(svg, y);
        return svg.ToString();
    }

    private static string ByCategory(RewardReport report)
    {
        const double RowHeight = 20;
        const double Names = 230;
        var shown = report.Categories.Take(MostCategories).ToList();
        var bottom = Top + (shown.Count * RowHeight);
        var svg = new Svg(
            Names + PlotWidth + 60, bottom + 56,
            shown.Count < report.Categories.Count ? Invariant($"Accuracy by category: the weakest {shown.Count} of {report.Categories.Count}") : "Accuracy by category");
        var x = new Axis(0, 1, Names, Names + PlotWidth, false);
        foreach (var value in Shares)
        {
            svg.Line(x.Place(value), Top, x.Place(value), bottom, Svg.Grid);
            svg.Text(x.Place(value), bottom + 17, Invariant($"{100 * value:0} %"), 11, "middle", Svg.Quiet);
        }

        foreach (var (index, category) in shown.Index())
        {
            var y = Top + (index * RowHeight);
            svg.Text(Names - 8, y + 14, Shorten(category.Name), 11, "end");
            svg.Rectangle(
                Names, y + 3, x.Place(category.Accuracy.Value) - Names, RowHeight - 6, Right,
                Invariant($"{category.Name}: right in {category.Accuracy.Count} of {category.Accuracy.Of} pairs"));
            svg.Text(x.Place(category.Accuracy.Value) + 5, y + 14, Invariant($"{category.Accuracy.Of}"), 10.5, fill: Svg.Quiet);
        }

        svg.Line(x.Place(0.5), Top, x.Place(0.5), bottom, Wrong);
        svg.Text(x.Place(0.5), Top - 8, "guessing", 11, "middle", Wrong);
        svg.Text((x.From + x.To) / 2, bottom + 40, "share that is right", anchor: "middle");
        return svg.ToString();
    }

    /// <summary>Marks of the vertical axis, the base line and both labels.</summary>
    private static void Frame(Svg svg, Axis y, string yLabel, string xLabel)
    {
        foreach (var (value, text) in y.Last == 1 ? Shares.Select(share => (share, Invariant($"{100 * share:0} %"))) : y.Marks())
        {
            svg.Line(Left, y.Place(value), Left + PlotWidth, y.Place(value), Svg.Grid);
            svg.Text(Left - 6, y.Place(value) + 4, text, 11, "end", Svg.Quiet);
        }

        svg.Line(Left, y.From, Left + PlotWidth, y.From, Svg.Quiet);
        svg.Text(Left + (PlotWidth / 2), y.From + 40, xLabel, anchor: "middle");
        svg.Text(Left - 52, (y.From + y.To) / 2, yLabel, anchor: "middle", turned: true);
    }

    private static void Guessing(Svg svg, Axis y)
    {
        svg.Line(Left, y.Place(0.5), Left + PlotWidth, y.Place(0.5), Svg.Quiet);
        svg.Text(Left + PlotWidth + 4, y.Place(0.5) + 4, "guess", 10.5, fill: Svg.Quiet);
    }

    private static void Legend(Svg svg, params ReadOnlySpan<(string Text, string Colour)> entries)
    {
        var x = 20.0;
        foreach (var (text, colour) in entries)
        {
            svg.Rectangle(x, 46, 14, 8, colour);
            svg.Text(x + 19, 55, text);
            x += 38 + (text.Length * 7.2);
        }
    }

    private static string Shorten(string name)
    {
        const int Most = 34;
        return name.Length <= Most ? name : name[..(Most - 1)] + "…";
    }

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);
}
