using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>Rotary positions: pairs of each head turn by an angle that grows with the position.</summary>
/// <remarks>Su et al. 2021, arXiv:2104.09864. As in Hugging Face checkpoints, number i pairs with number i + K/2 of a head.</remarks>
internal sealed class Rope : IDisposable
{
    private readonly Tensor _frequencies;
    private Tensor _cos;
    private Tensor _sin;

    /// <param name="frequencies">Radians per position, K/2 of them.</param>
    public Rope(float[] frequencies, Device device)
    {
        _frequencies = tensor(frequencies, device: device).DetachFromDisposeScope();
        (_cos, _sin) = MakeTables(0);
    }

    /// <summary>Cosines and sines at each position.</summary>
    /// <param name="positions">[B, T], each below <paramref name="length"/>.</param>
    /// <param name="length">The tables grow to hold this many positions; they are made once for all steps.</param>
    /// <returns>Two tensors [B, 1, T, K/2], float32, in the caller's dispose scope.</returns>
    public (Tensor Cos, Tensor Sin) At(Tensor positions, long length)
    {
        if (length > _cos.shape[0])
        {
            var (oldCos, oldSin) = (_cos, _sin);
            (_cos, _sin) = MakeTables(Math.Max(length, 2 * _cos.shape[0]));
            oldCos.Dispose();
            oldSin.Dispose();
        }

        using var scope = NewDisposeScope();
        return (Rows(_cos).MoveToOuterDisposeScope(), Rows(_sin).MoveToOuterDisposeScope());

        Tensor Rows(Tensor table) =>
            table.index_select(0, positions.reshape(-1)).view(positions.shape[0], 1, positions.shape[1], table.shape[1]);
    }

    /// <summary>Turns queries or keys.</summary>
    /// <param name="heads">[B, H, T, K].</param>
    /// <returns>The same shape and format, in the caller's dispose scope; computed in float32.</returns>
    public static Tensor Turn(Tensor heads, Tensor cos, Tensor sin)
    {
        using var scope = NewDisposeScope();
        var halves = heads.to(ScalarType.Float32).chunk(2, dim: -1);
        var turned = cat([halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin], dim: -1);
        return turned.to(heads.dtype).MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        _frequencies.Dispose();
        _cos.Dispose();
        _sin.Dispose();
    }

    private (Tensor Cos, Tensor Sin) MakeTables(long length)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var angles = arange(length, dtype: ScalarType.Float32, device: _frequencies.device).unsqueeze(1) * _frequencies;   // [length, K/2]
        return (angles.cos().DetachFromDisposeScope(), angles.sin().DetachFromDisposeScope());
    }
}
