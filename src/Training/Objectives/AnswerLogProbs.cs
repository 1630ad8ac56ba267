using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>How likely a model finds the answers of a batch.</summary>
/// <remarks>log π(y|x) = Σ log π(y_t | x, y before t) over the labelled tokens of a row, each predicted by the token before it.</remarks>
internal static class AnswerLogProbs
{
    /// <summary>log π(y|x) of each row, summed in float32.</summary>
    /// <returns>[B], nats, with gradient, in the caller's dispose scope.</returns>
    public static Tensor Of(CausalLm model, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var targets = TokenLoss.Targets(batch.Labels, batch.Length);
        var labelled = Enumerable.Range(0, targets.Length).Where(index => targets[index] != Example.Ignored).Select(index => (long)index).ToArray();
        var places = DeviceCopy.To(tensor(labelled), device);
        var hidden = BatchInput.HiddenStates(model, batch, device);   // [B, T, D]
        var rows = hidden.reshape(-1, hidden.shape[^1]).index_select(0, places);
        var wanted = DeviceCopy.To(tensor(Array.ConvertAll(labelled, index => targets[index])), device);
        var losses = LinearCrossEntropy.PerRow(rows, model.HeadWeight, wanted, BackwardPass.OfThisThread);   // [N]

        // Sums along an axis have one order; added up by row number, a GPU would take the tokens as they come.
        return zeros([targets.Length], dtype: ScalarType.Float32, device: device).scatter(0, places, -losses)
            .view(batch.Size, batch.Length).sum(dim: 1).MoveToOuterDisposeScope();
    }

    /// <summary>Labelled tokens of each row.</summary>
    /// <returns>[B], float32, in the caller's dispose scope.</returns>
    public static Tensor Lengths(Batch batch, Device device) => DeviceCopy.To(
        tensor(Enumerable.Range(0, batch.Size).Select(row =>
            (float)batch.Labels.AsSpan(row * batch.Length, batch.Length).ToArray().Count(label => label != Example.Ignored)).ToArray()), device);
}
