using static TorchSharp.torch;

namespace TrainingService.Training.Checkpoints;

/// <summary>Keeps numbers that are not finite out of saved weights.</summary>
internal static class FiniteTensors
{
    /// <exception cref="TrainingException">A tensor holds a NaN or an infinity.</exception>
    public static void Check(IEnumerable<(string Name, Tensor Tensor)> tensors)
    {
        foreach (var (name, tensor) in tensors)
        {
            using var scope = NewDisposeScope();
            if (!tensor.isfinite().all().item<bool>())
            {
                throw new TrainingException(
                    FailureCode.Diverged, $"'{name}' holds numbers that are not finite and is not saved; lower the learning rate.");
            }
        }
    }
}
