using TorchSharp.Modules;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Dmoe;

/// <summary>Joins the last hidden states of a category's experts to a reward: r = w₂·PReLU(W₁·z + b₁) + b₂.</summary>
/// <remarks>Quan 2024, arXiv:2403.01197, equation 6. Its tensors are float32 and are named as those of a sequence of Linear, PReLU, Linear.</remarks>
internal sealed class DmoeAggregation : IDisposable
{
    private readonly Parameter _first;    // [D, nD]
    private readonly Parameter _firstBias;
    private readonly Parameter _slope;    // [1]
    private readonly Parameter _second;   // [1, D]
    private readonly Parameter _secondBias;

    private DmoeAggregation(Func<string, Tensor> tensorOf)
    {
        _first = Own(tensorOf("0.weight"));
        _firstBias = Own(tensorOf("0.bias"));
        _slope = Own(tensorOf("1.weight"));
        _second = Own(tensorOf("2.weight"));
        _secondBias = Own(tensorOf("2.bias"));
    }

    /// <summary>The tensors that train, by their names in a file.</summary>
    public IReadOnlyList<TrainableTensor> Tensors =>
    [
        new("0.weight", _first), new("0.bias", _firstBias), new("1.weight", _slope), new("2.weight", _second), new("2.bias", _secondBias),
    ];

    /// <summary>A new one: matrices normal with deviation 1/√(inputs + 1), biases zero, and PReLU's slope ¼, as PyTorch has it.</summary>
    /// <param name="width">D.</param>
    public static DmoeAggregation New(int width, int experts, int seed, Device device)
    {
        using var generator = new Generator((ulong)seed, CPU);
        using var scope = NewDisposeScope();
        Tensor Normal(long rows, long columns) => randn([rows, columns], ScalarType.Float32, generator: generator).div_(Math.Sqrt(columns + 1));
        return new(name => (name switch
        {
            "0.weight" => Normal(width, (long)width * experts),
            "2.weight" => Normal(1, width),
            "1.weight" => full([1L], 0.25, ScalarType.Float32),
            "0.bias" => zeros([width], ScalarType.Float32),
            _ => zeros([1L], ScalarType.Float32),
        }).to(device));
    }

    /// <summary>One that was written.</summary>
    /// <param name="prefix">Of its names in the file.</param>
    public static DmoeAggregation Read(SafeTensorsFile file, string prefix, Device device)
    {
        using var scope = NewDisposeScope();
        return new(name => file.Entries.ContainsKey(prefix + name)
            ? file.Read(prefix + name, ScalarType.Float32, device)
            : throw TrainingException.InvalidData($"{Path.GetFileName(file.Path)} lacks '{prefix}{name}'; take the whole artifact of the run again.", prefix + name));
    }

    /// <summary>Rewards.</summary>
    /// <param name="z">[B, nD], float32: hidden states of the experts side by side.</param>
    /// <returns>[B], in the caller's dispose scope.</returns>
    public Tensor Rewards(Tensor z)
    {
        using var scope = NewDisposeScope();
        var first = nn.functional.linear(z, _first, _firstBias);
        var bent = nn.functional.relu(first) - (_slope * nn.functional.relu(-first));
        return nn.functional.linear(bent, _second, _secondBias).squeeze(1).MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        foreach (var tensor in Tensors)
        {
            tensor.Parameter.Dispose();
        }
    }

    private static Parameter Own(Tensor tensor)
    {
        var parameter = new Parameter(tensor, requires_grad: true);
        parameter.DetachFromDisposeScope();
        return parameter;
    }
}
