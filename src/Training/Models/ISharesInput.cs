using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>A module in a <see cref="LinearSlot"/> that can run together with its neighbours, on the one input that they all read.</summary>
internal interface ISharesInput
{
    /// <summary>The output of each module, in the caller's dispose scope; null when they cannot run together.</summary>
    /// <param name="modules">This one first.</param>
    IReadOnlyList<Tensor>? RunTogether(Tensor input, IReadOnlyList<nn.Module<Tensor, Tensor>> modules);
}
