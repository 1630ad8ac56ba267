using System.Globalization;

namespace TrainingService.Training.Spectra;

/// <summary>Colours that stay apart in print and for colour-blind readers.</summary>
internal static class Palette
{
    // Okabe and Ito's eight, yellow darkened to be seen on white.
    private static readonly string[] Kinds = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a400"];

    // Dark blue over green to yellow, even steps of lightness.
    private static readonly (int R, int G, int B)[] Ramp = [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)];

    /// <summary>The colour of the n-th kind.</summary>
    public static string Kind(int index) => Kinds[index % Kinds.Length];

    /// <summary>The colour of a share, from 0 (dark) to 1 (light).</summary>
    public static string Share(double share)
    {
        var place = Math.Clamp(share, 0, 1) * (Ramp.Length - 1);
        var index = Math.Min((int)place, Ramp.Length - 2);
        var (from, to, part) = (Ramp[index], Ramp[index + 1], place - index);
        int Mix(int a, int b) => (int)Math.Round(a + ((b - a) * part));
        return string.Create(CultureInfo.InvariantCulture, $"#{Mix(from.R, to.R):x2}{Mix(from.G, to.G):x2}{Mix(from.B, to.B):x2}");
    }
}
