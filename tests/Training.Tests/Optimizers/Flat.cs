using TorchSharp;
using TorchSharp.Modules;
using TrainingService.Training.Adapters;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Optimizers;

/// <summary>Parameters filled by formula, with an optimizer over them and gradients given by formula.</summary>
internal sealed class Flat : IDisposable
{
    private readonly DisposeScope _scope = NewDisposeScope();

    public Flat(OptimizerConfig config, params (TensorRole Role, long[] Shape)[] tensors)
        : this(config, ScalarType.Float32, tensors)
    {
    }

    public Flat(OptimizerConfig config, ScalarType dtype, params (TensorRole Role, long[] Shape)[] tensors)
    {
        set_num_threads(1);   // the same sums on every machine
        Parameters = [.. tensors.Select((tensor, index) => new Parameter(Weights(index, tensor.Shape).to_type(dtype)))];
        Buffers = new FlatParameters([.. tensors.Select((tensor, index) => new TrainableTensor($"p{index}", Parameters[index]) { Role = tensor.Role })]);
        Optimizer = config.Create(Buffers);
    }

    public IReadOnlyList<Parameter> Parameters { get; }

    public FlatParameters Buffers { get; }

    public Optimizer Optimizer { get; }

    /// <summary>Start of a parameter: sines, of another size for each.</summary>
    public static double[] Start(int parameter, long count) =>
        [.. Enumerable.Range(0, (int)count).Select(i => (double)(float)((0.5 + parameter) * Math.Sin(i + 3 * parameter)))];

    /// <summary>Gradient of a parameter at a one-based step.</summary>
    public static double[] Gradient(int parameter, int step, long count) =>
        [.. Enumerable.Range(0, (int)count).Select(i => (double)(float)(Math.Cos(0.7 * i * step + parameter) / (1 + parameter + i % 5)))];

    /// <summary>Takes steps, from the present one on.</summary>
    public void Run(int steps, double learningRate)
    {
        for (var count = 0; count < steps; count++)
        {
            using var scope = NewDisposeScope();
            Buffers.ZeroGradients();
            for (var index = 0; index < Parameters.Count; index++)
            {
                var parameter = Parameters[index];
                var gradient = tensor(Gradient(index, Optimizer.Steps + 1, parameter.numel()), dtype: ScalarType.Float32).view(parameter.shape);
                (parameter * gradient.to_type(parameter.dtype)).sum().backward();
            }

            Optimizer.Step(learningRate);
        }
    }

    /// <summary>Present numbers of a parameter.</summary>
    public float[] Numbers(int parameter) => [.. Parameters[parameter].detach().to_type(ScalarType.Float32).contiguous().data<float>()];

    /// <summary>Bytes that the optimizer keeps, master values left out.</summary>
    public long StateBytes => Optimizer.State.Where(x => !x.Name.StartsWith("master", StringComparison.Ordinal)).Sum(x => x.Tensor.numel() * x.Tensor.ElementSize);

    public void Dispose()
    {
        Optimizer.Dispose();
        Buffers.Dispose();
        _scope.Dispose();
    }

    /// <summary>Largest difference, relative to the largest number expected.</summary>
    public static double Difference(IEnumerable<float> actual, IEnumerable<double> expected)
    {
        var wanted = expected.ToArray();
        return actual.Zip(wanted, (a, b) => Math.Abs(a - b)).Max() / wanted.Max(Math.Abs);
    }

    private static Tensor Weights(int parameter, long[] shape) =>
        tensor(Start(parameter, shape.Aggregate(1L, (a, b) => a * b)), dtype: ScalarType.Float32).view(shape);
}
