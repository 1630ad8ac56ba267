using System.Text.Json.Serialization;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>What is optimised.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(SftConfig), "sft")]
[JsonDerivedType(typeof(PretrainingConfig), "pretraining")]
public abstract record ObjectiveConfig
{
    /// <summary>How many items the loss of a batch is summed over; the loss of a step is divided by the total over its batches.</summary>
    public virtual long Weight(Batch batch) => batch.TrainableTokens;

    /// <summary>Runs the model on a batch.</summary>
    /// <returns>Tensors in the caller's dispose scope.</returns>
    public abstract BatchLoss Measure(CausalLm model, Batch batch, Device device);
}

/// <summary>What an objective says of one batch.</summary>
/// <param name="Sum">Loss summed over the batch's items, float32 scalar with gradient, nats.</param>
/// <param name="Correct">Items predicted right, int64 scalar without gradient.</param>
public readonly record struct BatchLoss(Tensor Sum, Tensor Correct);
