using System.Text.Json;
using TrainingService.Training.Spectra;

namespace TrainingService.Training;

/// <summary>Draws a run's losses over its steps, from the lines of <c>metrics.jsonl</c>: also of a run that was interrupted and resumed.</summary>
internal static class LossCurve
{
    private static readonly (string Metric, string Text, string Colour)[] Curves =
    [
        ("train/loss", "training rows, each step", Palette.Kind(0)),
        ("eval/loss", "held-out rows", Palette.Kind(1)),
    ];

    /// <summary>Writes <c>loss.svg</c> beside <c>metrics.jsonl</c> in <paramref name="folder"/>.</summary>
    public static void Write(string folder)
    {
        var points = Curves.ToDictionary(curve => curve.Metric, _ => new List<(double X, double Y)>());
        foreach (var line in File.ReadLines(Path.Combine(folder, "metrics.jsonl")))
        {
            using var row = JsonDocument.Parse(line);
            var step = row.RootElement.GetProperty("step").GetDouble();
            foreach (var (metric, _, _) in Curves)
            {
                if (row.RootElement.TryGetProperty(metric, out var value))
                {
                    points[metric].Add((step, value.GetDouble()));
                }
            }
        }

        var drawn = Curves.Where(curve => points[curve.Metric].Count > 0).ToList();
        var series = drawn.Select(curve => new Series(curve.Text, points[curve.Metric], curve.Colour, curve.Text)).ToList();
        File.WriteAllText(
            Path.Combine(folder, "loss.svg"),
            Charts.Lines(
                "Loss over the run", "optimizer step", "nats per token", [new Panel("Mean over tokens that carry loss", series)],
                logarithmic: false, [.. drawn.Select(curve => (curve.Text, curve.Colour))]));
    }
}
