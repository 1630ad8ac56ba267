using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Cross-entropy of the labelled tokens of a batch, each given the tokens before it.</summary>
/// <remarks>Which tokens are labelled is decided when rows become examples; fine-tuning and pretraining differ there and nowhere else.</remarks>
public static class NextToken
{
    /// <returns>Sum over the batch's trainable tokens, in the caller's dispose scope.</returns>
    public static BatchLoss Measure(CausalLm model, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        // The head is the widest product of a small model: it runs only where there is something to predict.
        var targets = TokenLoss.Targets(batch.Labels, batch.Length);
        var labelled = Enumerable.Range(0, targets.Length).Where(index => targets[index] != Example.Ignored).ToArray();
        var hidden = BatchInput.HiddenStates(model, batch, device);   // [B, T, D]
        var rows = hidden.reshape(-1, hidden.shape[^1]).index_select(0, DeviceCopy.To(tensor(labelled), device));
        var wanted = DeviceCopy.To(tensor(Array.ConvertAll(labelled, index => targets[index])), device);
        var (sum, correct) = LinearCrossEntropy.Sum(rows, model.HeadWeight, wanted, BackwardPass.OfThisThread);
        return new(sum.MoveToOuterDisposeScope(), correct.MoveToOuterDisposeScope());
    }
}
