using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Numbers as bytes: per block of 256 the largest magnitude, and per number the nearest of 256 values between -1 (or 0) and 1.</summary>
/// <remarks>
/// Dettmers et al. 2022, arXiv:2110.02861, §2: the 256 values are dense near zero and cover seven powers of ten (dynamic tree quantisation);
/// the same as bitsandbytes' <c>create_dynamic_map</c>.
/// </remarks>
public sealed class DynamicCode : IDisposable
{
    /// <summary>Numbers that share a largest magnitude.</summary>
    public const int Block = 256;

    private readonly Tensor _values;
    private readonly Tensor _borders;

    public DynamicCode(bool signed, Device device)
    {
        using var scope = NewDisposeScope();
        var values = Values(signed);
        _values = tensor(values, ScalarType.Float32, device).DetachFromDisposeScope();
        _borders = tensor([.. values.Zip(values.Skip(1), (a, b) => (a + b) / 2)], ScalarType.Float32, device).DetachFromDisposeScope();
    }

    /// <summary>The 256 values, ascending.</summary>
    /// <remarks>
    /// Per power of ten, the middles of equal parts of [0.1, 1]: one or two parts at 10⁻⁶, twice as many at each next power. In float32 and
    /// by the published operations, so that they are the published values to the bit.
    /// </remarks>
    public static float[] Values(bool signed)
    {
        using var scope = NewDisposeScope();
        var values = new List<float> { 0, 1 };
        for (var power = 0; power < 7; power++)
        {
            var parts = signed ? 1 << power : 2 << power;
            var ends = linspace(0.1, 1, parts + 1, ScalarType.Float32);
            var middles = ends.narrow(0, 0, parts).add(ends.narrow(0, 1, parts)).div(2).mul(Math.Pow(10, power - 6)).data<float>().ToArray();
            values.AddRange(middles);
            if (signed)
            {
                values.AddRange(middles.Select(middle => -middle));
            }
        }

        return [.. values.Order()];
    }

    /// <summary>Stores numbers as bytes.</summary>
    /// <param name="numbers">Float32, [N], N a multiple of 256.</param>
    /// <param name="codes">Byte, [N]; written.</param>
    /// <param name="largest">Float32, [N/256]; written.</param>
    public void Write(Tensor numbers, Tensor codes, Tensor largest)
    {
        using var scope = NewDisposeScope();
        var blocks = numbers.view(-1, Block);
        largest.copy_(blocks.abs().amax([1]));
        var scale = largest.where(largest > 0, ones_like(largest));   // a block of zeros stays one
        codes.copy_(bucketize(blocks.div(scale.unsqueeze(1)), _borders, outInt32: true).view(-1));
    }

    /// <summary>The numbers that <see cref="Write"/> stored, float32, [N], in the caller's dispose scope.</summary>
    public Tensor Read(Tensor codes, Tensor largest)
    {
        using var scope = NewDisposeScope();
        return _values.index_select(0, codes.to_type(ScalarType.Int32)).view(-1, Block)
            .mul_(largest.unsqueeze(1)).view(-1).MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        _values.Dispose();
        _borders.Dispose();
    }
}
