using static TorchSharp.torch;

namespace TrainingService.Training.Spectra;

/// <summary>The singular values of one matrix, and what is read off them.</summary>
/// <param name="SingularValues">Largest first. All that can differ from zero, unless <paramref name="Exact"/> is false.</param>
/// <param name="Exact">False: the matrix is above the size limit and only its leading values were computed.</param>
/// <param name="FrobeniusNorm">√Σσ², over all values also when not all are listed.</param>
/// <param name="EffectiveRank">exp(−Σ p ln p) with p = σ/Σσ (Roy and Vetterli 2007); 0 for a zero matrix; null when not all values are known.</param>
/// <param name="StableRank">‖M‖F²/σ₁²; 0 for a zero matrix.</param>
public sealed record Spectrum(double[] SingularValues, bool Exact, double FrobeniusNorm, double? EffectiveRank, double StableRank)
{
    /// <summary>Largest singular value.</summary>
    public double SpectralNorm => SingularValues.Length == 0 ? 0 : SingularValues[0];

    /// <summary>The spectrum of a matrix [m, n].</summary>
    public static Spectrum Of(Tensor matrix, SpectraLimits limits)
    {
        if (Math.Min(matrix.shape[0], matrix.shape[1]) <= limits.ExactSize)
        {
            return FromValues(Numerics.SingularValues.Of(matrix));
        }

        using var off = no_grad();
        using var scope = NewDisposeScope();
        var norm = matrix.to_type(ScalarType.Float32).pow(2).sum(ScalarType.Float64).sqrt().item<double>();
        var leading = Numerics.SingularValues.Leading(matrix, limits.LeadingValues);
        return new Spectrum(leading, Exact: false, norm, EffectiveRank: null, StableRankOf(norm, leading));
    }

    /// <summary>The spectrum of scale·left·right, [m, R]·[R, n], from its factors.</summary>
    public static Spectrum OfProduct(Tensor left, Tensor right, double scale) =>
        FromValues(Numerics.SingularValues.OfProduct(left, right, scale));

    /// <summary>The figures of a complete list of singular values, largest first.</summary>
    public static Spectrum FromValues(double[] values)
    {
        var norm = Math.Sqrt(values.Sum(value => value * value));
        var sum = values.Sum();
        var entropy = sum == 0 ? 0 : -values.Where(value => value > 0).Sum(value => value / sum * Math.Log(value / sum));
        return new Spectrum(values, Exact: true, norm, sum == 0 ? 0 : Math.Exp(entropy), StableRankOf(norm, values));
    }

    private static double StableRankOf(double norm, double[] values) =>
        values.Length == 0 || values[0] == 0 ? 0 : norm * norm / (values[0] * values[0]);
}

/// <summary>How far a decomposition goes. A full one costs min(m, n)²·max(m, n): seconds at 2,048, minutes at 8,192.</summary>
public sealed record SpectraLimits
{
    public static readonly SpectraLimits Default = new();

    /// <summary>Matrices whose smaller side is at most this get all their singular values.</summary>
    public int ExactSize { get; init; } = 2048;

    /// <summary>How many of the largest values are computed above that.</summary>
    public int LeadingValues { get; init; } = 256;
}
