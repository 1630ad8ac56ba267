using System.Globalization;

namespace TrainingService.Training.Spectra;

/// <summary>Values to places along one side of a plot, with round marks.</summary>
/// <param name="First">Value at <paramref name="From"/>.</param>
/// <param name="Last">Value at <paramref name="To"/>.</param>
internal sealed record Axis(double First, double Last, double From, double To, bool Logarithmic)
{
    /// <summary>An axis that holds all values and begins and ends at marks; a logarithmic one holds positive values only.</summary>
    public static Axis Over(IEnumerable<double> values, double from, double to, bool logarithmic)
    {
        var kept = values.Where(value => double.IsFinite(value) && (!logarithmic || value > 0)).DefaultIfEmpty(1).ToList();
        var (low, high) = (kept.Min(), kept.Max());
        if (logarithmic)
        {
            // Values that are zero but for rounding would push everything else together.
            low = Math.Max(low, high * 1e-8);
            var (bottom, top) = (Math.Floor(Math.Log10(low)), Math.Ceiling(Math.Log10(high)));
            return new Axis(Math.Pow(10, bottom), Math.Pow(10, top == bottom ? top + 1 : top), from, to, true);
        }

        low = Math.Min(0, low);
        var step = Step(high - low);
        return new Axis(Math.Floor(low / step) * step, Math.Max(step, Math.Ceiling(high / step) * step), from, to, false);
    }

    /// <summary>Whole numbers from <paramref name="first"/> to <paramref name="last"/>, without rounding outwards.</summary>
    public static Axis Whole(int first, int last, double from, double to) => new(first, Math.Max(last, first + 1), from, to, false);

    public double Place(double value)
    {
        var share = Logarithmic
            ? (Math.Log10(Math.Max(value, First)) - Math.Log10(First)) / (Math.Log10(Last) - Math.Log10(First))
            : (value - First) / (Last - First);
        return From + (share * (To - From));
    }

    public IEnumerable<(double Value, string Text)> Marks()
    {
        if (Logarithmic)
        {
            var (bottom, top) = ((int)Math.Round(Math.Log10(First)), (int)Math.Round(Math.Log10(Last)));
            var every = Math.Max(1, (top - bottom + 5) / 6);
            for (var power = bottom; power <= top; power += every)
            {
                yield return (Math.Pow(10, power), string.Create(CultureInfo.InvariantCulture, $"1e{power}"));
            }

            yield break;
        }

        var step = Math.Max(Step(Last - First), double.IsInteger(First) && Last - First <= 8 && double.IsInteger(Last) ? 1 : 0);
        for (var i = 0; First + (i * step) <= Last * (1 + 1e-9); i++)
        {
            var value = First + (i * step);
            yield return (value, value.ToString("0.######", CultureInfo.InvariantCulture));
        }
    }

    private static double Step(double range)
    {
        if (range <= 0)
        {
            return 1;
        }

        var unit = Math.Pow(10, Math.Floor(Math.Log10(range / 5)));
        return unit * ((range / 5 / unit) switch { <= 1 => 1, <= 2 => 2, <= 5 => 5, _ => 10 });
    }
}
