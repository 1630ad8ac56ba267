using System.Globalization;

namespace TrainingService.Training.Spectra;

/// <summary>One line of a chart.</summary>
/// <param name="Legend">Text in the legend; null: none.</param>
internal sealed record Series(string Name, IReadOnlyList<(double X, double Y)> Points, string Colour, string? Legend);

/// <summary>One plot of a drawing.</summary>
internal sealed record Panel(string Title, IReadOnlyList<Series> Series);

/// <summary>Line charts and heat maps.</summary>
internal static class Charts
{
    private const double PlotWidth = 380;
    private const double PlotHeight = 230;
    private const double Left = 74;
    private const double Gap = 96;
    private const double Top = 84;

    /// <summary>Plots side by side, two in a row, with common vertical axis and legend.</summary>
    public static string Lines(
        string title, string xLabel, string yLabel, IReadOnlyList<Panel> panels, bool logarithmic, IReadOnlyList<(string Text, string Colour)> legend)
    {
        var columns = Math.Min(2, panels.Count);
        var rows = (panels.Count + columns - 1) / columns;
        // Title and legend need room also above a single plot.
        var width = Math.Max(Left + (columns * (PlotWidth + Gap)) - Gap + 30, Math.Max(20 + (title.Length * 10), LegendWidth(legend)));
        var svg = new Svg(width, Top + (rows * (PlotHeight + 78)), title);
        DrawLegend(svg, legend);
        var values = panels.SelectMany(panel => panel.Series).SelectMany(series => series.Points).Select(point => point.Y).ToList();
        for (var i = 0; i < panels.Count; i++)
        {
            var x = Left + (i % columns * (PlotWidth + Gap));
            var y = Top + (i / columns * (PlotHeight + 78));
            var xs = panels[i].Series.SelectMany(series => series.Points).Select(point => point.X).DefaultIfEmpty(0).ToList();
            DrawPanel(
                svg, panels[i], xLabel, yLabel,
                Axis.Whole((int)xs.Min(), (int)xs.Max(), x, x + PlotWidth),
                Axis.Over(values, y + PlotHeight, y, logarithmic));
        }

        return svg.ToString();
    }

    /// <summary>One row per matrix, one cell per value, coloured by the value's order of magnitude.</summary>
    public static string HeatMap(string title, string xLabel, string valueLabel, IReadOnlyList<(string Name, double[] Values)> rows)
    {
        const double CellWidth = 640;
        const double LabelWidth = 250;
        var rowHeight = rows.Count > 120 ? 6 : 15;
        var columns = rows.Max(row => row.Values.Length);
        var width = CellWidth / Math.Max(1, columns);
        var scale = Axis.Over(rows.SelectMany(row => row.Values), 0, 1, logarithmic: true);
        var bottom = Top + (rows.Count * rowHeight);
        var svg = new Svg(LabelWidth + CellWidth + 40, bottom + 60, title);
        DrawScale(svg, scale, LabelWidth, valueLabel);
        for (var r = 0; r < rows.Count; r++)
        {
            var y = Top + (r * rowHeight);
            if (rowHeight > 10 || r % 7 == 0)
            {
                svg.Text(LabelWidth - 8, y + Math.Max(rowHeight - 4, 6), Shorten(rows[r].Name), rowHeight > 10 ? 10.5 : 8, "end");
            }

            for (var c = 0; c < rows[r].Values.Length; c++)
            {
                var value = rows[r].Values[c];
                svg.Rectangle(
                    LabelWidth + (c * width), y, width + 0.3, rowHeight - (rowHeight > 10 ? 1 : 0), value > 0 ? Palette.Share(scale.Place(value)) : Svg.Grid,
                    string.Create(CultureInfo.InvariantCulture, $"{rows[r].Name}, value {c + 1}: {value:G4}"));
            }
        }

        var every = Math.Max(1, (columns + 7) / 8);
        for (var c = 0; c < columns; c += every)
        {
            svg.Text(LabelWidth + ((c + 0.5) * width), bottom + 16, (c + 1).ToString(CultureInfo.InvariantCulture), 11, "middle", Svg.Quiet);
        }

        svg.Text(LabelWidth + (CellWidth / 2), bottom + 40, xLabel, anchor: "middle");
        return svg.ToString();
    }

    private static void DrawPanel(Svg svg, Panel panel, string xLabel, string yLabel, Axis x, Axis y)
    {
        svg.Text(x.From, y.To - 8, panel.Title, 13, weight: "600");
        foreach (var (value, text) in y.Marks())
        {
            svg.Line(x.From, y.Place(value), x.To, y.Place(value), Svg.Grid);
            svg.Text(x.From - 6, y.Place(value) + 4, text, 11, "end", Svg.Quiet);
        }

        foreach (var (value, text) in x.Marks().Where(mark => double.IsInteger(mark.Value)))
        {
            svg.Line(x.Place(value), y.From, x.Place(value), y.From + 4, Svg.Quiet);
            svg.Text(x.Place(value), y.From + 17, text, 11, "middle", Svg.Quiet);
        }

        svg.Line(x.From, y.From, x.To, y.From, Svg.Quiet);
        svg.Text((x.From + x.To) / 2, y.From + 36, xLabel, anchor: "middle");
        svg.Text(x.From - 52, (y.From + y.To) / 2, yLabel, anchor: "middle", turned: true);
        foreach (var series in panel.Series)
        {
            var places = series.Points
                .Where(point => double.IsFinite(point.Y) && (!y.Logarithmic || point.Y >= y.First))
                .Select(point => (X: x.Place(point.X), Y: y.Place(point.Y), point)).ToList();
            svg.Polyline(places.Select(place => (place.X, place.Y)), series.Colour, series.Name);
            if (places.Count <= 40)
            {
                places.ForEach(place => svg.Dot(
                    place.X, place.Y, series.Colour, string.Create(CultureInfo.InvariantCulture, $"{series.Name}, {place.point.X:0}: {place.point.Y:G4}")));
            }
        }
    }

    private static void DrawLegend(Svg svg, IReadOnlyList<(string Text, string Colour)> legend)
    {
        var x = 20.0;
        foreach (var (text, colour) in legend)
        {
            svg.Rectangle(x, 44, 14, 4, colour);
            svg.Text(x + 19, 50, text, 12);
            x += LegendStep(text);
        }
    }

    private static double LegendWidth(IReadOnlyList<(string Text, string Colour)> legend) => 20 + legend.Sum(entry => LegendStep(entry.Text));

    private static double LegendStep(string text) => 38 + (text.Length * 7.2);

    private static void DrawScale(Svg svg, Axis scale, double left, string label)
    {
        const int Steps = 60;
        const double Width = 240;
        for (var i = 0; i < Steps; i++)
        {
            svg.Rectangle(left + (i * Width / Steps), 42, (Width / Steps) + 0.3, 10, Palette.Share(i / (double)(Steps - 1)));
        }

        foreach (var (value, text) in scale.Marks())
        {
            svg.Text(left + (scale.Place(value) * Width), 66, text, 10.5, "middle", Svg.Quiet);
        }

        svg.Text(left + Width + 14, 52, label, 12);
    }

    private static string Shorten(string name)
    {
        const int Most = 38;
        return name.Length <= Most ? name : "…" + name[^(Most - 1)..];
    }
}
