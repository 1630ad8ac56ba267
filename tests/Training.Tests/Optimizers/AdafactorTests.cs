using TrainingService.Training.Adapters;
using TrainingService.Training.Optimizers;

namespace TrainingService.Training.Tests.Optimizers;

public sealed class AdafactorTests
{
    public static TheoryData<AdafactorConfig> Configs =>
    [
        new AdafactorConfig { WeightDecay = 0.1 },
        new AdafactorConfig { ScaleParameter = false, RelativeStep = false },
        new AdafactorConfig { Eps1 = 0.2, Eps2 = 2, ClipThreshold = 1.5, Beta2Decay = -0.5 },
    ];

    // One weight matrix [1, 2], gradient (3, 4), first step: β₂ = 1 - 1^-0.8 = 0, so row = 12.5, column = (9, 16), and V = row·column/12.5
    // = (9, 16): every update is 1, its root mean square too, so nothing is clipped. RMS(w) = √((1 + 4)/2) = 1.5811, step 0.01·1.5811.
    [Fact]
    public void The_first_step_moves_each_weight_by_the_rate_times_the_root_mean_square()
    {
        var result = Reference(new AdafactorConfig(), 1, 2, [1, 2], _ => [3, 4], 0.01, 1);
        Assert.Equal([0.984188612, 1.984188612], result.Select(w => Math.Round(w, 9)));
    }

    /// <summary>
    /// Matrices of equal shape in one batch, others alone, a vector: <c>_single_tensor_adafactor</c> of <c>torch/optim/_adafactor.py</c>, written
    /// out per element in double precision.
    /// </summary>
    [Theory, MemberData(nameof(Configs))]
    public void Three_steps_equal_the_reference(AdafactorConfig config)
    {
        (TensorRole, long[])[] tensors = [(TensorRole.Weight, [6, 4]), (TensorRole.Weight, [9]), (TensorRole.Weight, [80, 64]), (TensorRole.Weight, [6, 4]), (TensorRole.Weight, [80, 64])];
        using var flat = new Flat(config, tensors);
        flat.Run(3, 0.02);

        for (var index = 0; index < tensors.Length; index++)
        {
            var (parameter, shape) = (index, tensors[index].Item2);
            var count = shape.Aggregate(1L, (a, b) => a * b);
            var expected = Reference(
                config, shape.Length == 1 ? 0 : (int)shape[0], (int)shape[^1], Flat.Start(index, count), step => Flat.Gradient(parameter, step, count), 0.02, 3);
            Assert.InRange(Flat.Difference(flat.Numbers(index), expected), 0, 2e-6);
        }
    }

    [Fact]
    public void It_remembers_rows_and_columns_and_not_weights()
    {
        using var flat = new Flat(new AdafactorConfig(), (TensorRole.Weight, [80, 64]), (TensorRole.Weight, [80, 64]), (TensorRole.Weight, [9]));

        Assert.Equal(4 * (2 * (80 + 64) + 9), flat.StateBytes);
    }

    /// <param name="rows">0: a vector.</param>
    private static double[] Reference(
        AdafactorConfig config, int rows, int columns, double[] start, Func<int, double[]> gradient, double rate, int steps)
    {
        var eps1 = config.Eps1 ?? Math.Pow(2, -23);
        var w = start.ToArray();
        var (row, column, vector) = (new double[rows], new double[columns], new double[columns]);
        for (var t = 1; t <= steps; t++)
        {
            var g = gradient(t);
            var weight = Math.Pow(t, config.Beta2Decay);
            var rho = config.RelativeStep ? Math.Min(rate, 1 / Math.Sqrt(t)) : rate;
            var alpha = config.ScaleParameter ? Math.Max(config.Eps2, Rms(w)) * rho : rho;
            for (var i = 0; i < w.Length; i++)
            {
                w[i] *= 1 - rate * config.WeightDecay;
            }

            var variance = new double[w.Length];
            if (rows == 0)
            {
                for (var j = 0; j < columns; j++)
                {
                    variance[j] = vector[j] += weight * (g[j] * g[j] - vector[j]);
                }
            }
            else
            {
                for (var i = 0; i < rows; i++)
                {
                    row[i] += weight * (Enumerable.Range(0, columns).Average(j => Math.Pow(g[i * columns + j], 2)) - row[i]);
                }

                for (var j = 0; j < columns; j++)
                {
                    column[j] += weight * (Enumerable.Range(0, rows).Average(i => Math.Pow(g[i * columns + j], 2)) - column[j]);
                }

                for (var i = 0; i < w.Length; i++)
                {
                    variance[i] = row[i / columns] * column[i % columns] / Math.Max(row.Average(), eps1);
                }
            }

            var update = g.Select((x, i) => x / Math.Sqrt(Math.Max(variance[i], eps1 * eps1))).ToArray();
            var denominator = Math.Max(1, Rms(update) / config.ClipThreshold);
            for (var i = 0; i < w.Length; i++)
            {
                w[i] -= alpha / denominator * update[i];
            }
        }

        return w;
    }

    private static double Rms(double[] numbers) => Math.Sqrt(numbers.Average(x => x * x));
}
