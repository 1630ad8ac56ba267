using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Numerics;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Optimizers;

public sealed class AdamWTests
{
    /// <summary>
    /// Three steps over blocks of large and of tiny gradients, beside a small tensor, a table of embeddings, and a tensor that ends within a block:
    /// the update of bitsandbytes (<c>optimizer_update_8bit_blockwise_pytorch</c>) and its rounding to the nearest value, in double precision.
    /// </summary>
    [Fact]
    public void Three_steps_with_8_bits_equal_the_reference()
    {
        var config = new AdamWConfig { StateBits = 8, WeightDecay = 0.1 };
        (TensorRole Role, long[] Shape)[] tensors =
            [(TensorRole.Weight, [80, 64]), (TensorRole.Weight, [9]), (TensorRole.Weight, [101, 41]), (TensorRole.Embedding, [100, 50]), (TensorRole.Weight, [101, 41])];
        using var flat = new Flat(config, tensors);
        flat.Run(3, 0.02);

        for (var index = 0; index < tensors.Length; index++)
        {
            var (parameter, (role, shape)) = (index, tensors[index]);
            var count = shape.Aggregate(1L, (a, b) => a * b);
            var expected = Reference(
                config.Betas, config.Eps, config.WeightDecay, Flat.Start(index, count), step => Flat.Gradient(parameter, step, count), 0.02, 3,
                count >= 4096 && role != TensorRole.Embedding);

            // A moment halfway between two values may fall to the other side in float32: next to none may, and all others agree.
            var errors = flat.Numbers(index).Zip(expected, (a, b) => Math.Abs(a - b)).ToArray();
            Assert.InRange(errors.Count(error => error > 1e-6 * (1 + index)), 0, errors.Length / 500);
            Assert.InRange(errors.Max(), 0, 1e-3);
        }
    }

    [Theory]
    [InlineData(32, 2 * 4 * (5120 + 4096 + 5120 + 9))]
    [InlineData(8, 2 * (2 * 5120 + 4 * 2 * 20 + 4 * 4096 + 4 * 9))]   // a byte each and a float32 for 256; the table and the small tensor as they were
    public void Its_state_has_the_bytes_that_are_announced(int bits, long bytes)
    {
        var config = new AdamWConfig { StateBits = bits };
        using var flat = new Flat(config, (TensorRole.Weight, [80, 64]), (TensorRole.Embedding, [64, 64]), (TensorRole.Weight, [80, 64]), (TensorRole.Weight, [9]));

        Assert.Equal(bytes, flat.StateBytes);
    }

    /// <summary>From the table that bitsandbytes' <c>create_dynamic_map()</c> gives, printed by float32's digits, at its ends and where the power changes.</summary>
    [Fact]
    public void The_signed_values_are_the_published_ones()
    {
        var values = DynamicCode.Values(signed: true);
        float[] lowest =
        [
            -0.992968738079071f, -0.9789062738418579f, -0.96484375f, -0.9507812261581421f, -0.936718761920929f, -0.922656238079071f,
            -0.9085937738418579f, -0.89453125f, -0.8804687261581421f, -0.866406261920929f, -0.852343738079071f, -0.8382812738418579f,
        ];

        Assert.Equal(lowest, values[..12]);
        Assert.Equal((256, 0f, 1f), (values.Length, values[127], values[255]));
        Assert.Equal([5.5e-7f, 3.25e-6f, 7.75e-6f, 2.125e-5f], values[128..132], (a, b) => Math.Abs(a - b) <= 1e-6f * a);
        Assert.Equal(values[..127].Reverse(), values[128..255].Select(value => -value));
    }

    // By hand: two parts of [0.1, 1] at 10⁻⁶ have the middles 0.325 and 0.775, four at 10⁻⁵ 0.2125, 0.4375, 0.6625, 0.8875, and so on to 128 at 1.
    [Fact]
    public void The_unsigned_values_are_the_published_ones()
    {
        var values = DynamicCode.Values(signed: false);

        Assert.Equal((256, 0f, 1f), (values.Length, values[0], values[255]));
        Assert.Equal([3.25e-7f, 7.75e-7f, 2.125e-6f, 4.375e-6f, 6.625e-6f, 8.875e-6f], values[1..7], (a, b) => Math.Abs(a - b) <= 1e-6f * a);
        Assert.Equal([0.1 + 0.9 * 126.5 / 128, 0.1 + 0.9 * 127.5 / 128], values[253..255].Select(x => (double)x), (a, b) => Math.Abs(a - b) < 1e-7);
    }

    [Fact]
    public void Every_value_and_a_block_of_zeros_survive_the_way_to_bytes_and_back()
    {
        using var scope = NewDisposeScope();
        using var code = new DynamicCode(signed: true, CPU);
        var numbers = cat([tensor(DynamicCode.Values(true)).mul(3), zeros(256)]);
        var (codes, largest) = (zeros(512, dtype: ScalarType.Byte), zeros(2));
        code.Write(numbers, codes, largest);

        Assert.Equal([3, 0], largest.data<float>().ToArray());
        Assert.Equal(Enumerable.Range(0, 256).Select(x => (byte)x), codes.narrow(0, 0, 256).data<byte>().ToArray());
        Assert.Equal(numbers.data<float>().ToArray(), code.Read(codes, largest).data<float>().ToArray());
    }

    /// <summary>PyTorch's AdamW, with the moments rounded after each step when <paramref name="quantized"/>.</summary>
    internal static double[] Reference(
        IReadOnlyList<double> betas, double eps, double decay, double[] start, Func<int, double[]> gradient, double rate, int steps, bool quantized = false)
    {
        var (w, m, v) = (start.ToArray(), new double[start.Length], new double[start.Length]);
        for (var t = 1; t <= steps; t++)
        {
            var g = gradient(t);
            for (var i = 0; i < w.Length; i++)
            {
                m[i] = betas[0] * m[i] + (1 - betas[0]) * g[i];
                v[i] = betas[1] * v[i] + (1 - betas[1]) * g[i] * g[i];
                w[i] = w[i] * (1 - rate * decay)
                    - rate / (1 - Math.Pow(betas[0], t)) * m[i] / (Math.Sqrt(v[i]) / Math.Sqrt(1 - Math.Pow(betas[1], t)) + eps);
            }

            if (quantized)
            {
                Round(m, signed: true);
                Round(v, signed: false);
            }
        }

        return w;
    }

    private static void Round(double[] numbers, bool signed)
    {
        var values = DynamicCode.Values(signed).Select(x => (double)x).ToArray();
        var middles = values.Zip(values.Skip(1), (a, b) => (a + b) / 2).ToArray();
        foreach (var block in Enumerable.Range(0, numbers.Length).Chunk(256))
        {
            var largest = block.Max(i => Math.Abs(numbers[i]));
            foreach (var i in block)
            {
                var above = Math.Clamp(~Array.BinarySearch(middles, numbers[i] / largest), 0, 255);
                numbers[i] = largest * values[above];
            }
        }
    }
}
