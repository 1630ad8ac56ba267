using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Optimizers;

public sealed class MuonTests
{
    public static TheoryData<MuonConfig> Configs =>
    [
        new MuonConfig { WeightDecay = 0.1 },
        new MuonConfig { AdjustLrFn = MuonRate.Original, Nesterov = false, Momentum = 0.8, NsSteps = 3 },
    ];

    /// <summary>
    /// Tall, wide and square matrices, two of one shape, beside a vector, an embedding and a head, which get AdamW: <c>_single_tensor_muon</c> of
    /// <c>torch/optim/_muon.py</c> written out in double precision, but for its rounding to bfloat16.
    /// </summary>
    [Theory, MemberData(nameof(Configs))]
    public void Three_steps_equal_the_reference(MuonConfig config)
    {
        (TensorRole Role, long[] Shape)[] tensors =
        [
            (TensorRole.Weight, [6, 4]), (TensorRole.Weight, [9]), (TensorRole.OutputFactor, [80, 64]), (TensorRole.Embedding, [6, 4]),
            (TensorRole.Weight, [3, 8]), (TensorRole.Weight, [6, 4]), (TensorRole.Weight, [5, 5]), (TensorRole.Head, [5, 5]),
        ];
        using var flat = new Flat(config, tensors);
        flat.Run(3, 0.02);

        for (var index = 0; index < tensors.Length; index++)
        {
            var (parameter, (role, shape)) = (index, tensors[index]);
            var count = shape.Aggregate(1L, (a, b) => a * b);
            double[] Gradient(int step) => Flat.Gradient(parameter, step, count);
            var expected = shape.Length == 2 && role is TensorRole.Weight or TensorRole.OutputFactor
                ? Reference(config, (int)shape[0], (int)shape[1], Flat.Start(index, count), Gradient, 0.02, 3)
                : AdamWTests.Reference(config.Betas, config.Eps, config.WeightDecay, Flat.Start(index, count), Gradient, 0.02, 3);
            Assert.InRange(Flat.Difference(flat.Numbers(index), expected), 0, 1e-5);
        }
    }

    // A matrix with singular values 3 and 4 has norm 5; the iteration works on 0.6 and 0.8 one by one: x ← 3.4445·x - 4.775·x³ + 2.0315·x⁵.
    // 0.6 → 1.19327 → 0.91213 → 0.79952 → 0.97649 → 0.72167; 0.8 → 0.97638 → 0.72193 → 1.08870 → 0.69617 → 1.11805 (by a pocket calculator)
    [Fact]
    public void The_iteration_brings_singular_values_near_one()
    {
        using var scope = NewDisposeScope();
        var result = Muon.Orthogonalise(tensor(new[] { 0f, 3, -4, 0, 0, 0 }).view(1, 3, 2), 5).reshape(-1).data<float>().ToArray();
        var (small, large) = (Iterate(0.6), Iterate(0.8));

        Assert.Equal([0, small, -large, 0, 0, 0], result, (a, b) => Math.Abs(a - b) < 1e-5);
        Assert.InRange(small, 0.7, 1.2);
        Assert.InRange(large, 0.7, 1.2);

        static float Iterate(double x)
        {
            for (var step = 0; step < 5; step++)
            {
                x = 3.4445 * x - 4.775 * Math.Pow(x, 3) + 2.0315 * Math.Pow(x, 5);
            }

            return (float)x;
        }
    }

    [Fact]
    public void Bfloat16_weights_are_orthogonalised_in_bfloat16()
    {
        using var half = new Flat(new MuonConfig(), ScalarType.BFloat16, (TensorRole.Weight, [48, 32]));
        using var full = new Flat(new MuonConfig(), (TensorRole.Weight, [48, 32]));
        half.Run(1, 0.02);
        full.Run(1, 0.02);

        Assert.InRange(Flat.Difference(half.Numbers(0), full.Numbers(0).Select(x => (double)x)), 1e-9, 1e-2);
    }

    private static double[] Reference(MuonConfig config, int rows, int columns, double[] start, Func<int, double[]> gradient, double rate, int steps)
    {
        var w = start.ToArray();
        var momentum = new double[w.Length];
        var factor = config.AdjustLrFn == MuonRate.Original
            ? Math.Sqrt(Math.Max(1, rows / (double)columns))
            : 0.2 * Math.Sqrt(Math.Max(rows, columns));
        for (var t = 1; t <= steps; t++)
        {
            var g = gradient(t);
            for (var i = 0; i < w.Length; i++)
            {
                momentum[i] = config.Momentum * momentum[i] + (1 - config.Momentum) * g[i];
            }

            var x = config.Nesterov ? g.Select((value, i) => (1 - config.Momentum) * value + config.Momentum * momentum[i]).ToArray() : momentum.ToArray();
            var norm = Math.Sqrt(x.Sum(value => value * value));
            x = [.. x.Select(value => value / norm)];
            for (var step = 0; step < config.NsSteps; step++)
            {
                // Of the shape as it is: (X·Xᵀ)·X is X·(Xᵀ·X), so that the turn of tall matrices changes only what is cheap.
                var gram = Product(x, rows, columns, Transposed(x, rows, columns), rows);
                var square = Product(gram, rows, rows, gram, rows);
                var polynomial = gram.Select((value, i) => -4.7750 * value + 2.0315 * square[i]).ToArray();
                var moved = Product(polynomial, rows, rows, x, columns);
                x = [.. x.Select((value, i) => 3.4445 * value + moved[i])];
            }

            for (var i = 0; i < w.Length; i++)
            {
                w[i] = w[i] * (1 - rate * config.WeightDecay) - rate * factor * x[i];
            }
        }

        return w;
    }

    private static double[] Transposed(double[] a, int rows, int columns) =>
        [.. Enumerable.Range(0, a.Length).Select(i => a[i % rows * columns + i / rows])];

    private static double[] Product(double[] a, int rows, int inner, double[] b, int columns)
    {
        var product = new double[rows * columns];
        for (var i = 0; i < rows; i++)
        {
            for (var k = 0; k < inner; k++)
            {
                for (var j = 0; j < columns; j++)
                {
                    product[i * columns + j] += a[i * inner + k] * b[k * columns + j];
                }
            }
        }

        return product;
    }
}
