using TrainingService.Training.Adapters;

namespace TrainingService.Training.Optimizers;

/// <summary>LoRA+: the output factor B of each update learns faster than the input factor A.</summary>
/// <remarks>
/// Hayou et al. 2024, arXiv:2402.12354, with the groups of Hugging Face PEFT's <c>create_loraplus_optimizer</c>: B and every vector (biases,
/// norms) learn at the rate times the ratio, and vectors do not decay; all else learns at the rate.
/// </remarks>
public static class LoraPlus
{
    /// <summary>How a tensor is treated.</summary>
    /// <param name="ratio">Null: LoRA+ is off, and all tensors are alike.</param>
    /// <returns>Factor of the learning rate, and whether the weight decay applies.</returns>
    public static (double RateFactor, bool Decays) Of(TensorRole role, int dimensions, double? ratio) => ratio switch
    {
        { } factor when role == TensorRole.OutputFactor => (factor, true),
        { } factor when dimensions < 2 => (factor, false),
        _ => (1, true),
    };
}
