using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Stands in the places of adapted layers and runs them without their updates, until it is disposed.</summary>
internal sealed class SwitchedOff : IDisposable
{
    private readonly IReadOnlyList<(LinearSlot Slot, AdaptedLinear Layer)> _layers;

    public SwitchedOff(IReadOnlyList<(LinearSlot Slot, AdaptedLinear Layer)> layers)
    {
        _layers = layers;
        foreach (var (slot, layer) in layers)
        {
            slot.Module = new Alone(layer);
        }
    }

    public void Dispose()
    {
        foreach (var (slot, layer) in _layers)
        {
            var alone = slot.Module;
            slot.Module = layer;
            alone.Dispose();
        }
    }

    private sealed class Alone(AdaptedLinear layer) : nn.Module<Tensor, Tensor>(nameof(Alone))
    {
        // A field of a module type would be found by reflection, registered as a child and disposed with this one.
        private readonly Func<Tensor, Tensor> _run = layer.RunWithoutUpdate;

        public override Tensor forward(Tensor x) => _run(x);
    }
}
