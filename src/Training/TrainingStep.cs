using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training;

/// <summary>What one optimizer step measured, before its update.</summary>
/// <param name="Loss">Mean over the step's items: trainable tokens, or pairs of answers.</param>
/// <param name="Accuracy">Share of the items that are right.</param>
/// <param name="GradNorm">Global L2 norm before clipping.</param>
/// <param name="Items">Items of the step.</param>
/// <param name="Figures">Means over the items of what <see cref="ObjectiveConfig.Figures"/> names.</param>
public sealed record StepResult(double Loss, double Accuracy, double GradNorm, long Items, IReadOnlyList<double> Figures);

/// <summary>Loss and gradient of one optimizer step, over any number of batches.</summary>
public static class TrainingStep
{
    /// <summary>
    /// Leaves in <paramref name="parameters"/> the gradient of the mean loss over all items of all <paramref name="batches"/>.
    /// How the items are spread over batches, rows and packed sequences makes no difference: they are counted first, and
    /// each batch contributes its sum divided by that count.
    /// </summary>
    /// <param name="ct">Asked before each batch; the parameters then are as before, and their gradients of no use.</param>
    public static StepResult Backward(
        CausalLm model, Adapter adapter, ObjectiveConfig objective, FlatParameters parameters, IReadOnlyList<Batch> batches, Device device,
        CancellationToken ct = default)
    {
        using var scope = NewDisposeScope();
        parameters.ZeroGradients();
        var items = batches.Sum(objective.Weight);
        var loss = zeros(1, dtype: ScalarType.Float32, device: device);
        var correct = zeros(1, dtype: ScalarType.Int64, device: device);
        var sums = zeros(objective.Figures.Count, dtype: ScalarType.Float32, device: device);
        for (var index = 0; index < batches.Count; index++)
        {
            ct.ThrowIfCancellationRequested();
            using var batchScope = NewDisposeScope();
            using var seen = adapter.BeginBatch(batches[index]);
            var measured = objective.Measure(model, adapter, batches[index], device);
            var part = measured.Sum / (double)items;
            if (index == 0 && adapter.Regulariser() is { } regulariser)
            {
                part = part + regulariser;   // a function of the weights alone: once per step
            }

            BackwardPass.OfThisThread.Run(part);
            loss.add_(part.detach());
            correct.add_(measured.Correct);
            if (measured.Figures is { } figures)
            {
                sums.add_(figures);
            }
        }

        // Read once per step: each reading waits for the device.
        using var noGrad = no_grad();
        var read = cat([loss.to_type(ScalarType.Float64), correct.to_type(ScalarType.Float64),
            parameters.GradientNormOnDevice().reshape(1).to_type(ScalarType.Float64), sums.to_type(ScalarType.Float64)]).cpu().data<double>().ToArray();
        return new(read[0], read[1] / items, read[2], items, [.. read[3..].Select(sum => sum / items)]);
    }
}
