using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Runs a model's layers on a batch.</summary>
internal static class BatchInput
{
    /// <summary>What the output head would read, [B, T, D], in the caller's dispose scope.</summary>
    public static Tensor HiddenStates(CausalLm model, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var shape = new long[] { batch.Size, batch.Length };
        var inputIds = DeviceCopy.To(tensor(batch.InputIds, shape), device);
        var positions = DeviceCopy.To(tensor(batch.Positions, shape), device);
        var segments = batch.Segments is null ? null : DeviceCopy.To(tensor(batch.Segments, shape), device);
        return model.HiddenStates(inputIds, positions, segments).MoveToOuterDisposeScope();
    }

    /// <summary>Scores of whole sequences: of the hidden state of each row's last token, whatever its id is.</summary>
    /// <returns>[B, outputs], float32, in the caller's dispose scope.</returns>
    public static Tensor Scores(CausalLm model, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        return model.Score(LastOf(HiddenStates(model, batch, device), batch, device)).MoveToOuterDisposeScope();
    }

    /// <summary>What stands at each row's last token.</summary>
    /// <param name="hidden">[B, T, D].</param>
    /// <returns>[B, D], in the caller's dispose scope.</returns>
    public static Tensor LastOf(Tensor hidden, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var last = Enumerable.Range(0, batch.Size).Select(row => ((long)row * batch.Length) + batch.Lengths[row] - 1).ToArray();
        return hidden.reshape(-1, hidden.shape[^1]).index_select(0, DeviceCopy.To(tensor(last), device)).MoveToOuterDisposeScope();
    }
}
