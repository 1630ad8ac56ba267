using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>What a trained tensor is for, where an optimizer treats it differently.</summary>
public enum TensorRole
{
    /// <summary>Anything without a role of its own: weights of hidden layers, biases, norms, the input factor A of an update.</summary>
    Weight,

    /// <summary>The factor of an update that is next to the layer's output and starts at zero: LoRA's B.</summary>
    OutputFactor,

    /// <summary>A table with a row per token or position. A step touches few of its rows.</summary>
    Embedding,

    /// <summary>The output head, where it has a weight of its own.</summary>
    Head,
}

/// <summary>Shape and role of a tensor that would train; nothing is loaded.</summary>
/// <param name="IsAdded">Whether the adapter adds it, in float32; otherwise it is a weight of the base model and keeps the model's number format.</param>
public sealed record TrainedShape(IReadOnlyList<long> Shape, TensorRole Role, bool IsAdded)
{
    /// <summary>How many numbers it holds.</summary>
    public long Count => Shape.Aggregate(1L, (product, size) => product * size);

    /// <summary>A weight of the base model that trains in place.</summary>
    public static TrainedShape InPlace(WeightShape weight) => new(weight.Shape, RoleOf(weight), IsAdded: false);

    /// <summary>Role of a weight of the base model.</summary>
    public static TensorRole RoleOf(WeightShape weight) => weight switch
    {
        { Name: LayerPlan.OutputHead + ".weight" } => TensorRole.Head,
        _ when ScoreHead.Owns(weight.Name) => TensorRole.Head,
        { IsLinear: false, Shape.Length: > 1 } => TensorRole.Embedding,
        _ => TensorRole.Weight,
    };
}
