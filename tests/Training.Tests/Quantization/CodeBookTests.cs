using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Quantization;

public class CodeBookTests
{
    /// <summary>
    /// arXiv:2305.14314, appendix E, lists the 16 values; here they are made again. Quantiles of the standard normal distribution at 8 equal
    /// steps from 0.5 to 0.9677083 on the positive side and 7 on the negative one, divided by the largest; zero stands once.
    /// </summary>
    [Fact]
    public void The_values_of_NF4_are_quantiles_of_the_normal_distribution()
    {
        const double Offset = 0.9677083;
        using var scope = NewDisposeScope();
        var left = linspace(1 - Offset, 0.5, 8, ScalarType.Float64).narrow(0, 0, 7);
        var right = linspace(0.5, Offset, 9, ScalarType.Float64);
        var quantiles = Quantile(cat([left, right]));
        var expected = (quantiles / quantiles.max()).data<double>().ToArray();

        Assert.Equal(16, Nf4Config.Values.Length);
        foreach (var (value, wanted) in Nf4Config.Values.ToArray().Zip(expected))
        {
            Assert.Equal(wanted, value, 1e-6);
        }
    }

    /// <summary>
    /// Ends and neighbours of zero as the authors' library prints them, and every value by the formula of its source: to one unit in the
    /// last place of float32, by which that float32 arithmetic is off.
    /// </summary>
    [Fact]
    public void The_dynamic_map_has_256_values()
    {
        using var scope = NewDisposeScope();
        var values = DynamicMap.Signed.ToArray();
        var expected = new List<double> { 0, 1 };
        for (var exponent = 0; exponent < 7; exponent++)
        {
            var limits = linspace(0.1, 1, (1 << exponent) + 1, ScalarType.Float32);
            var middles = (limits.narrow(0, 0, 1 << exponent) + limits.narrow(0, 1, 1 << exponent)) / 2;
            foreach (var middle in (middles * Math.Pow(10, exponent - 6)).data<float>().ToArray())
            {
                expected.AddRange([middle, -middle]);
            }
        }

        Assert.Equal(256, values.Distinct().Count());
        Assert.Equal(values.Order(), values);
        Assert.All(values.Zip(expected.Order()), pair => Assert.Equal(pair.Second, pair.First, 1.2e-7 * Math.Abs(pair.Second)));
        Assert.Equal((-0.992968738f, 5.5e-7f, 1f), (values[0], values[128], values[255]), new Close());
    }

    private static Tensor Quantile(Tensor probability) => probability.mul(2).sub(1).erfinv().mul(Math.Sqrt(2));

    private sealed class Close : IEqualityComparer<(float, float, float)>
    {
        public bool Equals((float, float, float) x, (float, float, float) y) =>
            Near(x.Item1, y.Item1) && Near(x.Item2, y.Item2) && Near(x.Item3, y.Item3);

        public int GetHashCode((float, float, float) obj) => 0;

        private static bool Near(float left, float right) => Math.Abs(left - right) <= 1.2e-7 * Math.Abs(right);
    }
}
