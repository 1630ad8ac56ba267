using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Singular values, largest first, as numbers that outlive every tensor.</summary>
/// <remarks>Half precision is widened first: an SVD in bfloat16 invents directions that are not there.</remarks>
public static class SingularValues
{
    /// <summary>Matrices up to this many rows or columns, whichever is fewer, are decomposed in float64.</summary>
    internal const int DoubleLimit = 512;

    // Rounds of subspace iteration and surplus directions of Halko, Martinsson and Tropp 2011, arXiv:0909.4061, §4.5 and §5.4: with
    // these the leading values of matrices with slowly falling spectra agree with the exact ones to about one per cent at the end of the
    // list and far better at its start.
    private const int PowerIterations = 6;
    private const int Oversampling = 32;

    /// <summary>All singular values of a matrix [m, n].</summary>
    public static double[] Of(Tensor matrix)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var wide = matrix.to_type(Math.Min(matrix.shape[0], matrix.shape[1]) <= DoubleLimit ? ScalarType.Float64 : ScalarType.Float32);
        return Numbers(linalg.svdvals(wide));
    }

    /// <summary>
    /// The singular values of scale·left·right that can differ from zero, without forming the product: with left = Q₁R₁ and
    /// rightᵀ = Q₂R₂ they are those of the small matrix scale·R₁·R₂ᵀ.
    /// </summary>
    /// <param name="left">[m, R].</param>
    /// <param name="right">[R, n].</param>
    public static double[] OfProduct(Tensor left, Tensor right, double scale)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var (_, r1) = linalg.qr(left.to_type(ScalarType.Float64));
        var (_, r2) = linalg.qr(right.to_type(ScalarType.Float64).transpose(0, 1));
        return Numbers(linalg.svdvals(r1.matmul(r2.transpose(0, 1)).mul(scale)));
    }

    /// <summary>The largest <paramref name="count"/> singular values, by subspace iteration from a fixed random start, float32.</summary>
    public static double[] Leading(Tensor matrix, int count)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var wide = matrix.to_type(ScalarType.Float32);
        var width = Math.Min(count + Oversampling, Math.Min(wide.shape[0], wide.shape[1]));
        using var generator = new Generator(0, CPU);
        var start = randn(wide.shape[1], width, dtype: ScalarType.Float32, generator: generator).to(wide.device);
        var basis = Orthonormal(wide.matmul(start));
        for (var i = 0; i < PowerIterations; i++)
        {
            using var round = NewDisposeScope();
            var back = Orthonormal(wide.transpose(0, 1).matmul(basis));
            basis = Orthonormal(wide.matmul(back)).MoveToOuterDisposeScope();
        }

        return Numbers(linalg.svdvals(basis.transpose(0, 1).matmul(wide)))[..(int)Math.Min(count, width)];
    }

    private static Tensor Orthonormal(Tensor matrix) => linalg.qr(matrix).Q;

    private static double[] Numbers(Tensor values) => values.to(ScalarType.Float64).cpu().data<double>().ToArray();
}
