namespace TrainingService.Training.Quantization;

/// <summary>The signed 8-bit dynamic map: the fewer digits the exponent takes, the more are left for the fraction.</summary>
/// <remarks>
/// Dettmers 2015, arXiv:1511.04561, and Dettmers et al. 2021, arXiv:2110.02861, §2.1. For each exponent e from 0 to 6 the middles of 2ᵉ equal
/// parts of [0.1, 1], times 10^(e-6), with both signs; then 0 and 1. There is no -1.
/// </remarks>
public static class DynamicMap
{
    private const int Exponents = 7;

    /// <summary>256 values, ascending.</summary>
    public static ReadOnlySpan<float> Signed => Sorted;

    private static readonly float[] Sorted = [.. Values().Order()];

    private static IEnumerable<float> Values()
    {
        yield return 0;
        yield return 1;
        for (var exponent = 0; exponent < Exponents; exponent++)
        {
            var parts = 1 << exponent;
            for (var part = 0; part < parts; part++)
            {
                var middle = (float)((0.1 + (0.9 * (part + 0.5) / parts)) * Math.Pow(10, exponent - (Exponents - 1)));
                yield return middle;
                yield return -middle;
            }
        }
    }
}
