using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Spectra;

/// <summary>The weights of the linear layers of a model on disk, read one at a time.</summary>
internal sealed class LinearWeights : IDisposable
{
    private readonly CheckpointFolder _checkpoint;
    private readonly Dictionary<string, string> _names;

    private LinearWeights(CheckpointFolder checkpoint, Dictionary<string, string> names)
    {
        _checkpoint = checkpoint;
        _names = names;
    }

    /// <summary>Names of the layers, in the model's order; the output head is one of them unless it is tied.</summary>
    public IReadOnlyCollection<string> Modules => _names.Keys;

    /// <summary>Number format on disk, of the first layer.</summary>
    public ScalarType DType => _checkpoint.Entries[_names.Values.First()].DType.ToScalarType();

    public static LinearWeights Open(string folder)
    {
        var config = HuggingFaceFolder.ReadConfig(folder);
        var checkpoint = CheckpointFolder.Open(folder);
        try
        {
            var stored = CheckpointNames.Match(config, checkpoint);
            return new LinearWeights(checkpoint, config.Weights
                .Where(weight => weight.IsLinear)
                .ToDictionary(weight => weight.Name[..^".weight".Length], weight => stored[weight.Name]));
        }
        catch (TrainingException)
        {
            checkpoint.Dispose();
            throw;
        }
    }

    /// <summary>One weight, [out, in], float32, in the caller's dispose scope.</summary>
    public Tensor Read(string module) => _checkpoint.Read(_names[module], ScalarType.Float32);

    /// <exception cref="TrainingException">The other model has other layers or shapes.</exception>
    public void CheckSameShapes(LinearWeights other)
    {
        foreach (var module in other.Modules.Union(Modules))
        {
            if (!_names.TryGetValue(module, out var mine) || !other._names.TryGetValue(module, out var theirs))
            {
                throw TrainingException.InvalidData($"Only one of the two models has a layer '{module}'; compare models of one architecture.", "against");
            }

            var (left, right) = (_checkpoint.Shape(mine), other._checkpoint.Shape(theirs));
            if (!left.SequenceEqual(right))
            {
                throw TrainingException.InvalidData(
                    $"Layer '{module}' is [{string.Join(", ", right)}] in one model and [{string.Join(", ", left)}] in the other; "
                    + "compare models of one size.", "against");
            }
        }
    }

    public void Dispose() => _checkpoint.Dispose();
}
