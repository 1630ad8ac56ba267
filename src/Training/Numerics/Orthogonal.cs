using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Orthogonal matrices from skew-symmetric ones.</summary>
internal static class Orthogonal
{
    /// <summary>Cayley's transform (I − Q)·(I + Q)⁻¹, exact.</summary>
    /// <param name="skew">[n, b, b], float32, each the negative of its transpose.</param>
    /// <returns>[n, b, b], in the caller's dispose scope; the identity to the bit where Q is zero.</returns>
    public static Tensor Cayley(Tensor skew)
    {
        using var scope = NewDisposeScope();
        var one = eye(skew.shape[^1], device: skew.device);
        return linalg.solve(one + skew, one - skew).MoveToOuterDisposeScope();   // both factors commute
    }

    /// <summary>I + 2Q + 2Q² + … + 2Qᵏ⁻² + Qᵏ⁻¹ for k terms: nearly (I + Q)·(I − Q)⁻¹ for small Q.</summary>
    /// <remarks>
    /// Of the other sense of rotation than <see cref="Cayley"/>, and with half of the last term, as PEFT computes it. Three terms and four
    /// are the same there.
    /// </remarks>
    /// <inheritdoc cref="Cayley"/>
    public static Tensor Neumann(Tensor skew, int terms)
    {
        using var scope = NewDisposeScope();
        var power = skew;
        var sum = eye(skew.shape[^1], device: skew.device) + 2 * skew;
        for (var exponent = 2; exponent < Math.Max(terms, 4) - 1; exponent++)
        {
            power = power.bmm(skew);
            sum = sum + 2 * power;
        }

        return (sum + power.bmm(skew)).MoveToOuterDisposeScope();
    }

    /// <summary>Each block of columns times its matrix.</summary>
    /// <param name="rows">[N, n·b].</param>
    /// <param name="matrices">[n, b, b].</param>
    /// <returns>[N, n·b], in the caller's dispose scope.</returns>
    public static Tensor Blocks(Tensor rows, Tensor matrices)
    {
        using var scope = NewDisposeScope();
        var blocks = rows.view(rows.shape[0], matrices.shape[0], matrices.shape[1]).transpose(0, 1);   // [n, N, b]
        return blocks.bmm(matrices).transpose(0, 1).reshape(rows.shape).MoveToOuterDisposeScope();
    }
}

/// <summary>Makes skew-symmetric matrices from the numbers above their diagonals.</summary>
internal sealed class SkewMatrices : IDisposable
{
    private readonly long _size;
    private readonly Tensor _place;   // [b·b], int64: where each entry comes from
    private readonly Tensor _sign;    // [b, b]: 1 above the diagonal, 0 on it, −1 below

    public SkewMatrices(long size, Device device)
    {
        var (places, signs) = (new long[size * size], new float[size * size]);
        var next = 0L;
        for (var row = 0L; row < size; row++)
        {
            for (var column = row + 1; column < size; column++)
            {
                (places[row * size + column], places[column * size + row]) = (next, next);
                (signs[row * size + column], signs[column * size + row]) = (1, -1);
                next++;
            }
        }

        using var scope = NewDisposeScope();
        _size = size;
        _place = tensor(places).to(device).DetachFromDisposeScope();
        _sign = tensor(signs).reshape(size, size).to(device).DetachFromDisposeScope();
    }

    /// <param name="upper">[n, b·(b−1)/2], row by row.</param>
    /// <returns>[n, b, b], in the caller's dispose scope.</returns>
    public Tensor Of(Tensor upper)
    {
        using var scope = NewDisposeScope();
        return upper.index_select(1, _place).view(-1, _size, _size).mul(_sign).MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        _place.Dispose();
        _sign.Dispose();
    }
}
