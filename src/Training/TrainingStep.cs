using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training;

/// <summary>What one optimizer step measured, before its update.</summary>
/// <param name="Loss">Mean over the step's trainable tokens.</param>
/// <param name="GradNorm">Global L2 norm before clipping.</param>
/// <param name="Items">Trainable tokens of the step.</param>
public sealed record StepResult(double Loss, double TokenAccuracy, double GradNorm, long Items);

/// <summary>Loss and gradient of one optimizer step, over any number of batches.</summary>
public static class TrainingStep
{
    /// <summary>
    /// Leaves in <paramref name="parameters"/> the gradient of the mean loss over all trainable tokens of all <paramref name="batches"/>.
    /// How the tokens are spread over batches, rows and packed sequences makes no difference: the tokens are counted first, and
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
        for (var index = 0; index < batches.Count; index++)
        {
            ct.ThrowIfCancellationRequested();
            using var batchScope = NewDisposeScope();
            using var seen = adapter.BeginBatch(batches[index]);
            var measured = objective.Measure(model, batches[index], device);
            var part = measured.Sum / (double)items;
            if (index == 0 && adapter.Regulariser() is { } regulariser)
            {
                part = part + regulariser;   // a function of the weights alone: once per step
            }

            BackwardPass.OfThisThread.Run(part);
            loss.add_(part.detach());
            correct.add_(measured.Correct);
        }

        // Read once per step: each reading waits for the device.
        using var noGrad = no_grad();
        var figures = stack([.. new[] { loss.squeeze(0), correct.squeeze(0), parameters.GradientNormOnDevice() }.Select(x => x.to_type(ScalarType.Float64))])
            .cpu().data<double>().ToArray();
        return new(figures[0], figures[1] / items, figures[2], items);
    }
}
