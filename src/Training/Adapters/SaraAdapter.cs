using System.Text.Json;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Layers of <see cref="SaraConfig"/>: pulls one of them to a low rank in each step, and stops the numbers that have outgrown the choice.</summary>
internal sealed class SaraAdapter(CausalLm model, SaraConfig config, LayerPlan plan) : LayerAdapter(model, config, plan)
{
    private int _refreshStep;
    private ulong _random;   // what the next step's layer is drawn from

    /// <inheritdoc/>
    /// <remarks>Which numbers have stopped, and where the draws are.</remarks>
    public override AdapterState State => new(
        [.. Sparse.Select(layer => (layer.Shape.Name, layer.Stopped))],
        JsonSerializer.SerializeToElement(new Draws(_random)));

    private IEnumerable<SaraLinear> Sparse => Layers.Cast<SaraLinear>();

    public override void Initialise(int seed, IReadOnlyDictionary<string, Tensor> measured)
    {
        base.Initialise(seed, measured);
        _random = (ulong)seed;
    }

    public override void Begin(int totalSteps) => _refreshStep = (int)Math.Round(config.RefreshAt * totalSteps);

    /// <summary>λ times the nuclear norm of one layer's chosen numbers. The same layer until the step is over.</summary>
    public override Tensor? Regulariser()
    {
        if (config.NuclearNorm == 0)
        {
            return null;
        }

        using var scope = NewDisposeScope();
        var layers = Sparse.ToList();
        return layers[(int)(Mixed(_random) % (ulong)layers.Count)].NuclearNorm().mul(config.NuclearNorm).MoveToOuterDisposeScope();
    }

    public override void AfterStep(int step)
    {
        using var off = no_grad();
        unchecked
        {
            _random += 0x9E3779B97F4A7C15;
        }

        foreach (var layer in Sparse)
        {
            layer.Hold();
            if (step == _refreshStep)
            {
                layer.StopOutgrown();
            }
        }
    }

    public override void Restore(AdapterState state)
    {
        using var off = no_grad();
        _random = state.Record!.Value.Deserialize<Draws>()!.Random;
        var stopped = state.Tensors.ToDictionary(tensor => tensor.Name, tensor => tensor.Tensor);
        foreach (var layer in Sparse)
        {
            layer.SetStopped(stopped[layer.Shape.Name]);
        }
    }

    /// <summary>SplitMix64's output for a counter: equally likely numbers from any start (Steele et al. 2014, doi:10.1145/2660193.2660195).</summary>
    private static ulong Mixed(ulong counter)
    {
        unchecked
        {
            counter = (counter ^ (counter >> 30)) * 0xBF58476D1CE4E5B9;
            counter = (counter ^ (counter >> 27)) * 0x94D049BB133111EB;
            return counter ^ (counter >> 31);
        }
    }

    private sealed record Draws(ulong Random);
}
