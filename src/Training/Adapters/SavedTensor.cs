using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>One tensor of a saved adapter, and where it comes from.</summary>
/// <param name="Name">Key in the file; beside a layer what follows the layer's name and a dot.</param>
/// <param name="Read">Its value, an own tensor of the adapter or a new one in the caller's dispose scope.</param>
/// <param name="Write">Takes a value over that was read from a file: finite, of the shape, on any device.</param>
internal sealed record SavedTensor(string Name, IReadOnlyList<long> Shape, Func<Tensor> Read, Action<Tensor> Write)
{
    /// <summary>The axis along which a file may have fewer entries than <see cref="Shape"/>; null: it must have all.</summary>
    public int? ShortAxis { get; init; }

    /// <summary>Whether a tensor of a file can be written.</summary>
    public bool Takes(IReadOnlyList<long> shape) => shape.Count == Shape.Count
        && shape.Index().All(axis => axis.Item == Shape[axis.Index] || (axis.Index == ShortAxis && axis.Item < Shape[axis.Index]));

    /// <summary>A tensor that is saved as it is.</summary>
    public static SavedTensor Of(string name, Tensor tensor) =>
        new(name, tensor.shape, () => tensor, value => tensor.copy_(value.to(tensor.dtype, tensor.device)));
}
