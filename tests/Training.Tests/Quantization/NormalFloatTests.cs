using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Quantization;

public class NormalFloatTests
{
    /// <summary>As the authors' builder prints them.</summary>
    [Fact]
    public void The_values_are_those_of_the_authors()
    {
        AssertClose([-1, 0, 0.3379152f, 1], NormalFloat.Values(2));
        AssertClose([-1, -0.4786292f, -0.2171418f, 0, 0.1609302f, 0.3379152f, 0.562617f, 1], NormalFloat.Values(3));
        Assert.Equal(256, NormalFloat.Values(8).Distinct().Count());
        Assert.Equal(NormalFloat.Values(8).Order(), NormalFloat.Values(8));
        Assert.Contains(0, NormalFloat.Values(8));
    }

    [Theory]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(8)]
    public void Codes_stand_for_the_nearest_value_times_the_scale(int bits)
    {
        // Number by number, with a last block that is short.
        using var scope = NewDisposeScope();
        var numbers = Enumerable.Range(0, 41).Select(i => (float)Math.Sin(i * i) * (1 + (i / 16))).ToArray();
        var values = NormalFloat.Values(bits);
        using var codes = new NormalFloat(bits, 16, false).Quantize(tensor(numbers), "w");

        var found = codes.Dequantize(ScalarType.Float32).data<float>().ToArray();

        for (var i = 0; i < numbers.Length; i++)
        {
            var scale = numbers.Chunk(16).ElementAt(i / 16).Max(Math.Abs);
            Assert.Equal(values.MinBy(value => Math.Abs(value - (numbers[i] / scale))) * scale, found[i], 1e-6);
        }
    }

    /// <summary>3 + 8/64 + 32/(64·256) bits, and 4 bytes for the mean of the scales.</summary>
    [Fact]
    public void Bytes_are_those_that_are_held()
    {
        using var scope = NewDisposeScope();
        var form = new NormalFloat(3, 64, true);
        using var codes = form.Quantize(arange(64 * 256, dtype: ScalarType.Float32).sin(), "w");

        Assert.Equal((64 * 256 * 3 / 8) + 256 + 4 + 4, form.BytesOf(64 * 256));
        Assert.Equal(form.BytesOf(64 * 256), codes.Bytes);
        Assert.Equal(64 * 256 * 3 / 8, codes.Codes.numel());
    }

    [Fact]
    public void Names_are_read_again() => Assert.All(NormalFloat.All, form => Assert.Equal(form, NormalFloat.OfName(form.Name)));

    private static void AssertClose(float[] expected, float[] found) =>
        Assert.All(expected.Zip(found), pair => Assert.Equal(pair.First, pair.Second, 1e-6));
}
