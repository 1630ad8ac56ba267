using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Quantization;

[Collection(nameof(RandomNumbers))]   // one test chooses the number of threads, which is the process's
public class QuantizedTensorTests
{
    /// <summary>
    /// absmax 2, so 2, -2, 1, -1, 0, 0.16 are 1, -1, 0.5, -0.5, 0, 0.08 of it: codes 15, 0, 12, 2, 7, 8, and 7 for every zero after them.
    /// The first code of a byte is its high half.
    /// </summary>
    [Fact]
    public void A_block_of_NF4_by_hand()
    {
        using var scope = NewDisposeScope();
        var weight = zeros(1, 64);
        weight[0, ..6] = tensor(new[] { 2f, -2f, 1f, -1f, 0f, 0.16f });
        using var quantized = new Nf4Config { DoubleQuantization = false }.Quantize(weight, "w");

        Assert.Equal(32 + 4, quantized.Bytes);
        Assert.Equal([0xF0, 0xC2, 0x78, 0x77], quantized.Codes.data<byte>().ToArray()[..4]);
        Assert.Equal(
            [2f, -2f, 2 * 0.44070982933044434f, 2 * -0.5250730514526367f, 0f, 2 * 0.07958029955625534f, 0f],
            quantized.Dequantize(ScalarType.Float32)[0].data<float>().ToArray()[..7]);
    }

    [Theory]
    [InlineData(1.0, 15)]
    [InlineData(-1.0, 0)]
    [InlineData(0.0, 7)]
    [InlineData(0.0397901497781277, 7)]      // the middle between 0 and 0.07958…: the lower one
    [InlineData(0.039791, 8)]
    [InlineData(0.5, 12)]                    // between 0.4407 and 0.5626, whose middle is 0.50166
    [InlineData(-0.5, 2)]                    // between -0.5251 and -0.3949, whose middle is -0.45999
    public void A_number_gets_the_nearest_value_of_NF4(double number, int code)
    {
        using var scope = NewDisposeScope();
        using var quantized = new Nf4Config { BlockSize = 32 }.Quantize(tensor(new[] { (float)number, 1 }), "w");

        Assert.Equal((code << 4) | 15, quantized.Codes[0].item<byte>());
    }

    /// <summary>round(127/absmax · x): with absmax 127 a code is the integer itself, counted from -127; 0.4 rounds to 0 and -2.6 to -3.</summary>
    [Fact]
    public void A_block_of_int8_by_hand()
    {
        using var scope = NewDisposeScope();
        var weight = zeros(64);
        weight[..5] = tensor(new[] { 127f, -127f, 0.4f, -2.6f, 64f });
        using var quantized = new Int8Config().Quantize(weight, "w");

        Assert.Equal([254, 0, 127, 124, 191, 127], quantized.Codes.data<byte>().ToArray()[..6]);
        Assert.Equal([127f, -127f, 0f, -3f, 64f, 0f], quantized.Dequantize(ScalarType.Float32).data<float>().ToArray()[..6], (a, b) => Math.Abs(a - b) < 1e-5);
    }

    /// <summary>
    /// Scales 1 and 3 have the mean 2 and differ from it by -1 and 1, so the second scale is 1. The dynamic map ends at 1 and at -0.99296875:
    /// the scales come back as 3 and as 2 - 0.99296875.
    /// </summary>
    [Fact]
    public void Double_quantisation_by_hand()
    {
        using var scope = NewDisposeScope();
        using var quantized = new Nf4Config().Quantize(cat([ones(64), full([64L], 3f)]), "w");

        var scales = quantized.Scales().data<float>().ToArray();

        Assert.Equal(1.00703125, scales[0], 1e-6);
        Assert.Equal(3, scales[1]);
        Assert.Equal(64 + 2 + 4 + 4, quantized.Bytes);
        Assert.Equal(scales[0], quantized.Dequantize(ScalarType.Float32)[0].item<float>());
    }

    /// <summary>4 + 8/64 + 32/(64·256) = 4.127 bits, arXiv:2305.14314 §3, and one mean per matrix.</summary>
    [Fact]
    public void A_weight_takes_4_127_bits()
    {
        const long Count = 4096 * 4096;

        Assert.Equal((Count * 4.126953125 / 8) + 4, new Nf4Config().BytesOf(Count));
        Assert.Equal(Count * 4.5 / 8, new Nf4Config { DoubleQuantization = false }.BytesOf(Count));
        Assert.Equal(Count * 8.5 / 8, new Int8Config().BytesOf(Count));
    }

    /// <summary>
    /// Mean error of normal numbers, as bitsandbytes' tests state it from 1,000 samples of 1024 x 1024 (tests/test_functional.py,
    /// test_4bit_quant); 1 % above and below for one sample of a sixteenth.
    /// </summary>
    [Theory]
    [InlineData(64, 0.072792)]
    [InlineData(256, 0.080326)]
    [InlineData(128, 0.076835)]
    public void The_error_of_NF4_is_the_published_one(int blockSize, double error)
    {
        using var scope = NewDisposeScope();
        var weight = Normal(256, 256);
        using var quantized = new Nf4Config { BlockSize = blockSize, DoubleQuantization = false }.Quantize(weight, "w");
        using var twice = new Nf4Config { BlockSize = blockSize }.Quantize(weight, "w");

        Assert.Equal(error, Error(weight, quantized), 0.01 * error);
        Assert.Equal(error, Error(weight, twice), 0.02 * error);
    }

    /// <summary>The same source bounds the dynamic map's error in blocks of 256 by 0.011; equal steps are closer for normal numbers.</summary>
    [Fact]
    public void The_error_of_int8_is_within_the_published_bound()
    {
        using var scope = NewDisposeScope();
        var weight = Normal(256, 256);
        using var dynamic = new Int8Config { Map = Int8Map.Dynamic, BlockSize = 256 }.Quantize(weight, "w");
        using var linear = new Int8Config { BlockSize = 256 }.Quantize(weight, "w");

        Assert.InRange(Error(weight, dynamic), 0.008, 0.011);
        Assert.InRange(Error(weight, linear), 0.003, 0.7 * Error(weight, dynamic));
    }

    [Theory]
    [InlineData("nf4", 300, 700)]     // more than two threads' worth, whole blocks but for the last, which is short
    [InlineData("nf4", 3, 45)]        // odd, shorter than three blocks
    [InlineData("int8", 300, 700)]
    [InlineData("int8", 3, 45)]
    public void The_kernel_gives_the_bits_of_the_operators(string type, int rows, int columns)
    {
        using var scope = NewDisposeScope();
        QuantizationConfig config = type == "nf4" ? new Nf4Config() : new Int8Config { DoubleQuantization = true };
        var weight = Normal(rows, columns);
        using var quantized = config.Quantize(weight, "w");
        var threads = get_num_threads();
        set_num_threads(3);

        foreach (var dtype in new[] { ScalarType.Float32, ScalarType.BFloat16 })
        {
            var expected = empty(weight.shape, dtype: dtype);
            quantized.LookUp(expected);

            Assert.True(quantized.Dequantize(dtype).equal(expected).all().item<bool>());
        }

        set_num_threads(threads);

        Assert.InRange(Error(weight, quantized), 1e-4, type == "nf4" ? 0.09 : 0.02);
    }

    [Fact]
    public void Zeros_stay_zeros()
    {
        using var scope = NewDisposeScope();
        var weight = zeros(3, 64);
        weight[1] = 1e-3f;
        using var quantized = new Nf4Config().Quantize(weight, "w");

        var back = quantized.Dequantize(ScalarType.Float32);

        Assert.Equal(0, back[0].abs().max().item<float>());
        Assert.Equal(0, back[2].abs().max().item<float>());
        Assert.Equal(1e-3, back[1].min().item<float>(), 1e-5);
    }

    [Theory]
    [InlineData(float.NaN)]
    [InlineData(float.NegativeInfinity)]
    public void Numbers_that_are_not_finite_are_refused_by_name(float number)
    {
        using var scope = NewDisposeScope();
        var weight = ones(2, 64);
        weight[1, 3] = number;

        var error = Assert.Throws<TrainingException>(() => new Nf4Config().Quantize(weight, "model.layers.0.mlp.up_proj.weight"));

        Assert.Equal((FailureCode.InvalidData, "model.layers.0.mlp.up_proj.weight"), (error.Code, error.Param));
    }

    /// <summary>Normal numbers by formula: the quantile function at the numbers that the golden folder's README defines, key <c>normal</c>.</summary>
    internal static Tensor Normal(int rows, int columns)
    {
        using var scope = NewDisposeScope();
        var state = "normal".Aggregate(0xCBF29CE484222325, (hash, letter) => (hash ^ letter) * 0x100000001B3);
        var numbers = new double[rows * columns];
        for (var i = 0; i < numbers.Length; i++)
        {
            state += 0x9E3779B97F4A7C15;
            var z = state;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            numbers[i] = ((z ^ (z >> 31)) >> 40) / 8388608.0 - 1 + (1.0 / 16777216);
        }

        return tensor(numbers).erfinv().mul(Math.Sqrt(2)).to_type(ScalarType.Float32).view(rows, columns).MoveToOuterDisposeScope();
    }

    private static double Error(Tensor weight, QuantizedTensor quantized) =>
        (quantized.Dequantize(ScalarType.Float32) - weight).abs().mean().item<float>();
}
