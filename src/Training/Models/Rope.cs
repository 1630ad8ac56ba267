using TrainingService.Training.Numerics;
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
    /// <returns>Cosines [B, 1, T, K], their two halves equal, and sines [B, 1, T, K/2]; float32, in the caller's dispose scope.</returns>
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
        return RopeFunction.apply(heads, cos, sin).MoveToOuterDisposeScope();
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
        return (angles.cos().repeat(1, 2).DetachFromDisposeScope(), angles.sin().DetachFromDisposeScope());
    }
}

/// <summary>The turn as one node of the graph. Its gradient is the turn back, so nothing but the shared tables is kept for later.</summary>
internal sealed class RopeFunction : autograd.SingleTensorFunction<RopeFunction>
{
    private const string Call = "call";

    public override string Name => nameof(RopeFunction);

    /// <param name="vars">Heads [B, H, T, K], cosines [B, 1, T, K], sines [B, 1, T, K/2].</param>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (heads, cos, sin) = ((Tensor)vars[0], (Tensor)vars[1], (Tensor)vars[2]);
        ctx.save_for_backward([cos, sin]);
        ctx.save_data(Call, BackwardPass.OfThisThread);
        ctx.set_materialize_grads(false);
        return Turn(heads, cos, sin, direction: 1);
    }

    public override List<Tensor?> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var pass = (BackwardPass)ctx.get_data(Call);
        return pass.Compute([grad_output], count: 3, () =>
        {
            var saved = ctx.get_saved_variables();
            return [Turn(grad_output, saved[0], saved[1], direction: -1), null, null];
        });
    }

    /// <summary>In three passes: all by the cosine, then to each half the other one by the sine.</summary>
    private static Tensor Turn(Tensor heads, Tensor cos, Tensor sin, int direction)
    {
        using var scope = NewDisposeScope();
        var half = sin.shape[^1];
        var wide = heads.to(ScalarType.Float32);
        var turned = wide * cos;
        turned.narrow(-1, 0, half).addcmul_(wide.narrow(-1, half, half), sin, value: -direction);
        turned.narrow(-1, half, half).addcmul_(wide.narrow(-1, 0, half), sin, value: direction);
        return turned.to(heads.dtype).MoveToOuterDisposeScope();
    }
}
