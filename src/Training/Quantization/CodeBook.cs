using static TorchSharp.torch;

namespace TrainingService.Training.Quantization;

/// <summary>The values in [-1, 1] that codes stand for: 16 in four bits, or up to 256 in eight.</summary>
internal sealed class CodeBook
{
    private readonly float[] _values;

    /// <param name="values">Ascending; zero is one of them.</param>
    public CodeBook(ReadOnlySpan<float> values)
    {
        _values = values.ToArray();
        Bits = _values.Length <= 16 ? 4 : 8;
    }

    public int Bits { get; }

    /// <summary>What a byte of codes stands for: two values each, of the high and then of the low half, [256, 2]; or one, [256].</summary>
    /// <returns>Float32, in the caller's dispose scope.</returns>
    public Tensor Table(Device device)
    {
        var numbers = Bits == 4
            ? Enumerable.Range(0, 256).SelectMany(code => new[] { _values[code >> 4], _values[code & 15] }).ToArray()
            : [.. _values, .. Enumerable.Repeat(0f, 256 - _values.Length)];
        using var scope = NewDisposeScope();
        var flat = tensor(numbers, dtype: ScalarType.Float32, device: device);
        return (Bits == 4 ? flat.view(256, 2) : flat).MoveToOuterDisposeScope();
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
}
