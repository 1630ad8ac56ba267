using TorchSharp.Modules;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>What the papers claim, in small: heads on fixed features, trained by full batches with Adam. Rows and noise are functions of their number.</summary>
public class RewardClaimsTests(ITestOutputHelper output)
{
    private const int Width = 16;
    private static readonly double[] Rates = [0.002, 0.004, 0.01, 0.03];

    // A smooth function of the features in [-3, 3], plus Cauchy noise: squared error follows the few rows that are far off. Both heads choose their rate by the very
    // rows that they are judged on, so none wins by a rate that suits it.
    [Fact]
    public void HL_Gauss_beats_squared_error_under_heavy_tails()
    {
        using var scope = NewDisposeScope();
        var noise = 0.5 * tan(Math.PI / 2 * 0.999 * Uniform(3, 512));

        var (squared, gauss) = Errors(noise);

        Assert.True(gauss.Min() < 0.8 * squared.Min(), $"{gauss.Min()} {squared.Min()}");
    }

    // Even noise as large as the function itself. With the best rate the two are level; with a larger one squared error learns more of the noise by heart.
    [Fact]
    public void HL_Gauss_learns_less_of_even_noise_by_heart()
    {
        using var scope = NewDisposeScope();
        var noise = 2 * Math.Sqrt(3) * Uniform(3, 512);

        var (squared, gauss) = Errors(noise);

        Assert.InRange(gauss.Min() / squared.Min(), 0.9, 1.1);
        Assert.All(Rates.Index().Where(rate => rate.Item > 0.003), rate => Assert.True(gauss[rate.Index] < 0.9 * squared[rate.Index]));
    }

    // One positive in 21, whose features overlap with the others'.
    [Fact]
    public void F1_as_a_loss_beats_cross_entropy_in_F1_at_one_to_twenty()
    {
        using var scope = NewDisposeScope();
        var (rows, labels) = Imbalanced(5, 2100);
        var (fresh, truth) = Imbalanced(6, 2100);
        double F1(ClassificationConfig objective)
        {
            var read = Train(objective.Score, rows, outputs => objective.SumOfLosses(outputs, labels) / labels.shape[0], steps: 200, rate: 0.02);
            var said = read(fresh).argmax(1);
            var right = said.logical_and(truth).sum().item<long>();
            return 2.0 * right / (said.sum().item<long>() + truth.sum().item<long>());
        }

        var entropy = F1(new());
        var figure = F1(new() { Loss = ClassificationLoss.FBeta });

        output.WriteLine($"F1 of cross-entropy {entropy:F3}, of AnyLoss {figure:F3}");
        Assert.True(figure > entropy + 0.05, $"{figure} {entropy}");
    }

    // A preference that bends with its features, and one that does not.
    [Theory]
    [InlineData(true, 0.05)]
    [InlineData(false, -0.02)]
    public void Two_layers_are_at_least_level_with_one(bool bends, double lead)
    {
        using var scope = NewDisposeScope();
        Tensor Worth(Tensor rows) => bends ? rows.select(1, 0) + (2 * rows.select(1, 1) * rows.select(1, 2)) : rows.select(1, 0) - rows.select(1, 1);
        (Tensor Chosen, Tensor Rejected) Pairs(int part)
        {
            var (one, other) = (Features(part, 1024), Features(part + 1, 1024));
            var first = Worth(one).gt(Worth(other)).unsqueeze(1);
            return (where(first, one, other), where(first, other, one));
        }

        var (chosen, rejected) = Pairs(10);
        var (better, worse) = Pairs(20);
        double Accuracy(ScoreLayers layers)
        {
            var read = Train(
                new ScoreHead(layers), cat([chosen, rejected]),
                outputs => BradleyTerry.Losses(outputs.squeeze(1)[..1024], outputs.squeeze(1)[1024..]).mean(), steps: 150, rate: 0.005);
            return read(better).gt(read(worse)).to_type(ScalarType.Float32).mean().item<float>();
        }

        var (linear, two) = (Accuracy(ScoreLayers.Linear), Accuracy(ScoreLayers.Mlp));

        output.WriteLine($"bends {bends}: accuracy of one layer {linear:F3}, of two {two:F3}");
        Assert.True(two >= linear + lead, $"{two} {linear}");
    }

    /// <summary>Root mean squared errors against the function without noise, on fresh rows, with each of <see cref="Rates"/>.</summary>
    private (double[] Squared, double[] Gauss) Errors(Tensor noise)
    {
        var (rows, fresh) = (Features(1, 512), Features(2, 512));
        var grades = Smooth(rows) + noise;
        double Error(RegressionConfig objective, double rate)
        {
            var read = Train(objective.Score, rows, outputs => objective.Losses(outputs, grades).mean(), steps: 150, rate);
            return (objective.Predict(read(fresh)) - Smooth(fresh)).square().mean().sqrt().item<float>();
        }

        double[] Of(RegressionConfig objective) => [.. Rates.Select(rate => Error(objective, rate))];
        var squared = Of(new() { ScoreLayers = ScoreLayers.Mlp });
        var gauss = Of(new() { ScoreLayers = ScoreLayers.Mlp, ValueHead = ValueHead.HlGauss, VMin = -10, VMax = 10 });
        output.WriteLine($"squared error {string.Join(" ", squared.Select(error => $"{error:F3}"))}; HL-Gauss {string.Join(" ", gauss.Select(error => $"{error:F3}"))}");
        return (squared, gauss);
    }

    /// <summary>Trains a head on fixed features.</summary>
    /// <returns>Reads other features with it; usable within the caller's dispose scope.</returns>
    private static Func<Tensor, Tensor> Train(ScoreHead head, Tensor features, Func<Tensor, Tensor> loss, int steps, double rate)
    {
        var weights = head.Weights(Width).ToDictionary(weight => weight.Name, weight => new Parameter(head.New(weight, seed: 1)));
        using var adam = optim.Adam(weights.Values, lr: rate);
        for (var step = 0; step < steps; step++)
        {
            using var scope = NewDisposeScope();
            adam.zero_grad();
            loss(head.Run(features, name => weights[name])).backward();
            adam.step();
        }

        return other =>
        {
            using var off = no_grad();
            return head.Run(other, name => weights[name]);
        };
    }

    private static Tensor Uniform(int part, int count) => CounterRandom.Uniform((ulong)part << 32, 0, count, CPU);   // [-1, 1)

    private static Tensor Features(int part, int rows) => (Uniform(100 + part, rows * Width) * Math.Sqrt(3)).reshape(rows, Width);

    private static Tensor Smooth(Tensor rows) => 3 * (rows.select(1, 0) + (0.5 * rows.select(1, 1) * rows.select(1, 2))).tanh();

    private static (Tensor Rows, Tensor Labels) Imbalanced(int part, int count)
    {
        var labels = arange(count, ScalarType.Int64).remainder(21).eq(0).to_type(ScalarType.Int64);
        var rows = Features(part, count) + (1.2 * labels.unsqueeze(1) * arange(Width, ScalarType.Float32).lt(3));
        return (cat([rows[.., 1..], ones(count, 1)], dim: 1), labels);   // the head has no bias: a feature that is always 1 is its threshold
    }
}
