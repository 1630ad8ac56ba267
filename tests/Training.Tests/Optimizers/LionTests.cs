using TrainingService.Training.Adapters;
using TrainingService.Training.Optimizers;

namespace TrainingService.Training.Tests.Optimizers;

public sealed class LionTests
{
    // Momentum 0 and gradient 2: direction +1, w = 1·(1 - 0.1·0.5) - 0.1 = 0.85, m = 0.01·2 = 0.02.
    // Gradient -0.1: 0.9·0.02 - 0.1·0.1 = 0.008 > 0, so the momentum outweighs the gradient: w = 0.85·0.95 - 0.1 = 0.7075,
    // m = 0.99·0.02 - 0.01·0.1 = 0.0188. Gradient -1: 0.9·0.0188 - 0.1 < 0: w = 0.7075·0.95 + 0.1 = 0.772125.
    [Fact]
    public void Three_steps_follow_the_hand_values()
    {
        double[] gradients = [2, -0.1, -1];
        Assert.Equal([0.85, 0.7075, 0.772125], Reference(new LionConfig { WeightDecay = 0.5 }, [1], step => [gradients[step - 1]], 0.1, 3).Select(w => Math.Round(w[0], 9)));
    }

    /// <summary>Over several chunks, with tensors of several shapes: the formula of Google's <c>lion_pytorch.py</c>, in double precision.</summary>
    [Fact]
    public void Three_steps_equal_the_reference()
    {
        var config = new LionConfig { WeightDecay = 0.1, Betas = [0.95, 0.98] };
        using var flat = new Flat(config, (TensorRole.Weight, [7, 5]), (TensorRole.Weight, [1, 200_000]), (TensorRole.Weight, [7, 5]));
        flat.Run(3, 0.01);

        for (var index = 0; index < 3; index++)
        {
            var (parameter, count) = (index, flat.Parameters[index].numel());
            var expected = Reference(config, Flat.Start(index, count), step => Flat.Gradient(parameter, step, count), 0.01, 3)[^1];
            Assert.InRange(Flat.Difference(flat.Numbers(index), expected), 0, 1e-6);
        }
    }

    private static List<double[]> Reference(LionConfig config, double[] start, Func<int, double[]> gradient, double rate, int steps)
    {
        var (w, m) = (start.ToArray(), new double[start.Length]);
        var (beta1, beta2) = (config.Betas[0], config.Betas[1]);
        var results = new List<double[]>();
        for (var step = 1; step <= steps; step++)
        {
            var g = gradient(step);
            for (var i = 0; i < w.Length; i++)
            {
                w[i] = w[i] * (1 - rate * config.WeightDecay) - rate * Math.Sign(beta1 * m[i] + (1 - beta1) * g[i]);
                m[i] = beta2 * m[i] + (1 - beta2) * g[i];
            }

            results.Add(w.ToArray());
        }

        return results;
    }
}
