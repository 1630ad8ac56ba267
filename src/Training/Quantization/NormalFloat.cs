using System.Collections.Concurrent;
using System.Globalization;
using static TorchSharp.torch;

namespace TrainingService.Training.Quantization;

/// <summary>A form of codes: NormalFloat of 2, 3, 4 or 8 bits in blocks, whose scales are float32 or in codes themselves.</summary>
/// <remarks>
/// Guo et al. 2023, LQ-LoRA, arXiv:2311.12023, §3.1 and appendix A: the quantiles of Dettmers et al. 2023, arXiv:2305.14314, §3, for any number of bits. Scales are held as
/// <see cref="QuantizedTensor"/> does it, where LQ-LoRA has a second level of unsigned integers over the smallest scale.
/// </remarks>
internal sealed record NormalFloat(int Bits, int BlockSize, bool DoubleQuantization)
{
    private const double Offset = 0.9677083;   // of the largest quantile, as NF4 has it

    private static readonly ConcurrentDictionary<int, CodeBook> Books = new();

    /// <summary>Every form that a budget chooses from, in a fixed order.</summary>
    public static IReadOnlyList<NormalFloat> All { get; } =
    [
        .. from bits in (int[])[2, 3, 4, 8]
           from block in (int[])[64, 32, 16]
           from twice in (bool[])[true, false]
           select new NormalFloat(bits, block, twice),
    ];

    /// <summary>The form as a choice of adapter is saved with it, such as <c>nf3/64/double</c>.</summary>
    public string Name => string.Create(CultureInfo.InvariantCulture, $"nf{Bits}/{BlockSize}{(DoubleQuantization ? "/double" : "")}");

    public static NormalFloat? OfName(string name) => All.FirstOrDefault(form => form.Name == name);

    /// <summary>Bytes that a weight of so many numbers takes, with its scales.</summary>
    public long BytesOf(long count) => QuantizedTensor.BytesOf(count, Bits, BlockSize, DoubleQuantization);

    /// <summary>Turns a weight into codes.</summary>
    /// <returns>The caller's to dispose.</returns>
    /// <exception cref="TrainingException">The weight holds a number that is not finite.</exception>
    public QuantizedTensor Quantize(Tensor weight, string name) =>
        QuantizedTensor.Of(weight, Books.GetOrAdd(Bits, bits => new CodeBook(Values(bits))), BlockSize, DoubleQuantization) ?? throw TrainingException.InvalidData(
            $"Tensor {name} holds numbers that are not finite, so it cannot be quantised; the checkpoint is damaged.", name);

    /// <summary>The code book of so many bits: quantiles in equal steps on both sides of zero, one more on the positive one, divided by the largest.</summary>
    public static float[] Values(int bits)
    {
        if (bits == 4)
        {
            return Nf4Config.Values.ToArray();   // as its authors print them
        }

        using var scope = NewDisposeScope();
        var half = 1 << (bits - 1);
        var left = linspace(1 - Offset, 0.5, half, ScalarType.Float64).narrow(0, 0, half - 1);
        var right = linspace(0.5, Offset, half + 1, ScalarType.Float64);
        var quantiles = cat([left, right]).mul(2).sub(1).erfinv();
        return quantiles.div(quantiles.max()).to_type(ScalarType.Float32).data<float>().ToArray();
    }
}
