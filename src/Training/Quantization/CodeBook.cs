using static TorchSharp.torch;

namespace TrainingService.Training.Quantization;

/// <summary>The values in [-1, 1] that codes stand for: up to 4, 8, 16 or 256, in two, three, four or eight bits.</summary>
internal sealed class CodeBook
{
    private readonly float[] _values;
    private readonly Lazy<float[]> _table;

    /// <param name="values">Ascending; zero is one of them.</param>
    public CodeBook(ReadOnlySpan<float> values)
    {
        _values = values.ToArray();
        Bits = _values.Length switch
        {
            <= 4 => 2,
            <= 8 => 3,
            <= 16 => 4,
            _ => 8,
        };
        _table = new(() => Rows(_values, Bits));
    }

    public int Bits { get; }

    /// <summary>What a byte of codes stands for, the high bits first: four values, [256, 4], two, [256, 2], or one, [256]; with three bits, what 12 bits do, [4096, 4].</summary>
    /// <returns>Float32, in the caller's dispose scope.</returns>
    public Tensor Table(Device device)
    {
        using var scope = NewDisposeScope();
        var flat = tensor(_table.Value, dtype: ScalarType.Float32, device: device);
        return (Bits == 8 ? flat : flat.view(-1, CodesOf(Bits))).MoveToOuterDisposeScope();
    }

    /// <summary>The code of the nearest value; in the middle between two, of the lower one.</summary>
    /// <param name="scaled">Numbers in [-1, 1].</param>
    /// <returns>uint8 in the same shape, in the caller's dispose scope.</returns>
    public Tensor Nearest(Tensor scaled)
    {
        using var scope = NewDisposeScope();
        var middles = _values.Zip(_values.Skip(1), (low, high) => (float)(((double)low + high) / 2)).ToArray();
        return bucketize(scaled, tensor(middles, dtype: ScalarType.Float32, device: scaled.device), outInt32: true)
            .to_type(ScalarType.Byte).MoveToOuterDisposeScope();
    }

    // That a row of the table stands for.
    private static int CodesOf(int bits) => bits switch
    {
        8 => 1,
        4 => 2,
        _ => 4,
    };

    private static float[] Rows(float[] values, int bits)
    {
        var (codes, last) = (CodesOf(bits), (1 << bits) - 1);
        var numbers =
            from row in Enumerable.Range(0, 1 << (bits * codes))
            from place in Enumerable.Range(1, codes)
            let code = (row >> (bits * (codes - place))) & last
            select code < values.Length ? values[code] : 0;
        return numbers.ToArray();
    }
}
