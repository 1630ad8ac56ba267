using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>The leading part of a singular value decomposition, W ≈ U·diag(S)·Vᵀ.</summary>
internal static class SingularVectors
{
    /// <summary>Exact, from a whole decomposition.</summary>
    /// <param name="matrix">[m, n], float32.</param>
    /// <returns>U [m, count], S [count] in descending order, Vᵀ [count, n], in the caller's dispose scope.</returns>
    public static (Tensor Left, Tensor Values, Tensor Right) Largest(Tensor matrix, long count)
    {
        using var scope = NewDisposeScope();
        var (left, values, right) = linalg.svd(Widened(matrix), fullMatrices: false);
        return (Taken(left, 1), Taken(values, 0), Taken(right, 0));

        Tensor Taken(Tensor all, int axis) => all.narrow(axis, 0, count).to_type(ScalarType.Float32).contiguous().MoveToOuterDisposeScope();
    }

    /// <summary>By subspace iteration without surplus directions: Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithms 4.4 and 5.1.</summary>
    /// <inheritdoc cref="Largest"/>
    /// <param name="generator">On the CPU; draws the start.</param>
    public static (Tensor Left, Tensor Values, Tensor Right) Randomized(Tensor matrix, long count, int iterations, Generator generator)
    {
        using var scope = NewDisposeScope();
        var start = randn(matrix.shape[1], count, dtype: ScalarType.Float32, device: CPU, generator: generator).to(matrix.device);
        var basis = Orthonormal(matrix.mm(start));   // [m, count]
        for (var i = 0; i < iterations; i++)
        {
            basis = Orthonormal(matrix.mm(Orthonormal(matrix.t().mm(basis))));
        }

        var (left, values, right) = linalg.svd(basis.t().mm(matrix), fullMatrices: false);
        return (basis.mm(left).MoveToOuterDisposeScope(), values.MoveToOuterDisposeScope(), right.MoveToOuterDisposeScope());
    }

    /// <summary>Exact for small matrices, else by ten iterations over twice as many directions, whose surplus is left out.</summary>
    /// <inheritdoc cref="Randomized"/>
    public static (Tensor Left, Tensor Values, Tensor Right) Leading(Tensor matrix, long count, Generator generator)
    {
        var shorter = Math.Min(matrix.shape[0], matrix.shape[1]);
        if (shorter <= SingularValues.DoubleLimit)
        {
            return Largest(matrix, count);
        }

        using var scope = NewDisposeScope();
        var (left, values, right) = Randomized(matrix, Math.Min(2 * count, shorter), iterations: 10, generator);
        return (Taken(left, 1), Taken(values, 0), Taken(right, 0));

        Tensor Taken(Tensor all, int axis) => all.narrow(axis, 0, count).contiguous().MoveToOuterDisposeScope();
    }

    /// <summary>The matrix in the format that it is decomposed in: float64 where that is quick, else float32.</summary>
    public static Tensor Widened(Tensor matrix) =>
        matrix.to_type(Math.Min(matrix.shape[0], matrix.shape[1]) <= SingularValues.DoubleLimit ? ScalarType.Float64 : ScalarType.Float32);

    private static Tensor Orthonormal(Tensor columns) => linalg.qr(columns).Q;
}
