using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TorchSharp.Modules;
using TrainingService.Training.Models;
using static TorchSharp.torch;
using Linear = TrainingService.Training.Models.Linear;

namespace TrainingService.Training.Adapters;

/// <summary>Progressive sparse low-rank adaptation: of each weight only the smallest numbers train, all others stay as they are to the bit.</summary>
/// <remarks>
/// Hu et al. 2024, arXiv:2409.06633. In the form of a change, θ' = θ + M∘d, so that the model's own weights stay frozen and the file holds
/// places and values alone. The authors choose by one threshold for all weights; here each weight gives the same share of its numbers, so that
/// the count of trained numbers is known before a model is loaded.
/// </remarks>
[Method(
    "SaRA",
    "Of each weight the numbers that are nearest to zero train, and nothing else.",
    "Changes of style and domain that should leave what the model knows in place; there is no factor and no rank to choose.",
    Paper = "Hu et al. 2024, SaRA: High-Efficient Diffusion Model Fine-tuning with Progressive Sparse Low-Rank Adaptation",
    Arxiv = "2409.06633",
    Parameters = "⌊share·in·out⌋ per layer, at least 1")]
public sealed record SaraConfig : LayerAdapterConfig
{
    /// <summary>Key of the changes d, [k].</summary>
    internal const string Values = "sara_values";

    /// <summary>Key of their places in the weight, counted row by row, ascending, [k], int32.</summary>
    internal const string Places = "sara_places";

    [Description("Share of each weight's numbers that trains: those of the smallest magnitude."), Range(1e-7, 1)]
    public double Share { get; init; } = 0.01;

    [Description("When, as a share of the run, numbers that have outgrown the largest magnitude chosen at the start stop training; 0: never."), Range(0, 1), TrainingOnly]
    public double RefreshAt { get; init; } = 0.5;

    [Description("Weight λ of the nuclear norm of the chosen numbers of one random weight in each step (a full SVD of it: slow on large ones); 0: off."), Range(0, 1e3), TrainingOnly]
    public double NuclearNorm { get; init; }

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
        [new(Values, [Math.Max(1, (long)(Share * layer.Out * layer.In))])];

    internal override AdaptedLinear Wrap(LayerParts parts) => new SaraLinear(parts);

    internal override LayerAdapter Build(CausalLm model, LayerPlan plan) => new SaraAdapter(model, this, plan);

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) => layers
        .Where(layer => layer.In * layer.Out > int.MaxValue)
        .Take(1)
        .Select(layer => LayerChecks.Error(
            "target_modules",
            $"selects layer '{layer.Name}', whose weight of {layer.Out} x {layer.In} has more numbers than places can be saved for ({int.MaxValue}); "
            + "leave it out by adapter.exclude_modules.",
            SpecErrorCodes.Conflict));
}

/// <summary>y = (W + scatter(d))·x + b.</summary>
internal sealed class SaraLinear(LayerParts parts) : AdaptedLinear(parts)
{
    private readonly Chosen _chosen = new(parts.Tensors[SaraConfig.Values].shape[0], parts.Tensors[SaraConfig.Values].device);

    private Parameter Values => Own(SaraConfig.Values);

    public override IEnumerable<SavedTensor> Saved =>
    [
        SavedTensor.Of(SaraConfig.Values, Values),
        new(SaraConfig.Places, _chosen.Places.shape, () => _chosen.Places.to_type(ScalarType.Int32), SetPlaces),
    ];

    /// <summary>Which of the chosen numbers have stopped training, [k], bool; the adapter's own.</summary>
    public Tensor Stopped => _chosen.Stopped;

    /// <summary>The chosen numbers as they are now, θ + d, [k], in the caller's dispose scope.</summary>
    public Tensor Current
    {
        get
        {
            using var scope = NewDisposeScope();
            return (Original() + Values).MoveToOuterDisposeScope();
        }
    }

    public override void Initialise(AdapterStart start)
    {
        using var scope = NewDisposeScope();
        var sizes = FrozenWeight().abs().flatten().cpu();   // on the CPU: the same choice on every device
        SetPlaces(sizes.topk((int)Values.shape[0], 0, largest: false, sorted: false).indexes.sort().Values);
    }

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return Scattered(Values).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x)
    {
        if (BaseLayer is not Linear plain)
        {
            return base.forward(x);
        }

        using var scope = NewDisposeScope();
        var weight = (plain.weight + Delta()).to(x.dtype);   // the sum in float32, rounded once, as a merge does
        return nn.functional.linear(x, weight, plain.bias).MoveToOuterDisposeScope();
    }

    /// <summary>The sum of the singular values of the weight with all but the chosen numbers at zero; a scalar with its graph, in the caller's dispose scope.</summary>
    public Tensor NuclearNorm()
    {
        using var scope = NewDisposeScope();
        return linalg.svdvals(Scattered(Current)).sum().MoveToOuterDisposeScope();
    }

    /// <summary>Stops those that are now larger than all were at the start.</summary>
    public void StopOutgrown()
    {
        using var scope = NewDisposeScope();
        SetStopped(Current.abs().gt(Original().abs().max()));
    }

    /// <param name="stopped">[k], bool; stays the caller's. Their changes keep the values that they have now.</param>
    public void SetStopped(Tensor stopped)
    {
        _chosen.Stopped.copy_(stopped);
        _chosen.Kept.copy_(Values);
    }

    /// <summary>Takes back what an optimizer did to those that have stopped: momentum and decay move them without a gradient.</summary>
    public void Hold()
    {
        using var scope = NewDisposeScope();
        Values.copy_(where(_chosen.Stopped, _chosen.Kept, Values));
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _chosen.Dispose();
        }

        base.Dispose(disposing);
    }

    private void SetPlaces(Tensor places)
    {
        using var scope = NewDisposeScope();
        if (places.lt(0).logical_or(places.ge(Shape.Out * Shape.In)).any().item<bool>())
        {
            throw TrainingException.InvalidData($"'{SaraConfig.Places}' of layer '{Shape.Name}' names numbers that its weight does not have; the adapter is damaged.");
        }

        _chosen.Places.copy_(places);
    }

    /// <summary>θ at the chosen places, [k], float32, in the caller's dispose scope.</summary>
    private Tensor Original()
    {
        using var scope = NewDisposeScope();
        return FrozenWeight().flatten().index_select(0, _chosen.Places).MoveToOuterDisposeScope();
    }

    // Back-propagation through the scatter gathers: a full gradient of the weight is gone before the next layer's is made.
    private Tensor Scattered(Tensor values) => zeros(Shape.Out * Shape.In, dtype: ScalarType.Float32, device: values.device)
        .scatter(0, _chosen.Places, values).view(Shape.Out, Shape.In);

    // Fields of a tensor's type would be found by reflection and registered as this layer's.
    private sealed class Chosen(long count, Device device) : IDisposable
    {
        public Tensor Places { get; } = arange(count, ScalarType.Int64, device).DetachFromDisposeScope();

        public Tensor Stopped { get; } = zeros(count, dtype: ScalarType.Bool, device: device).DetachFromDisposeScope();

        public Tensor Kept { get; } = zeros(count, dtype: ScalarType.Float32, device: device).DetachFromDisposeScope();

        public void Dispose()
        {
            Places.Dispose();
            Stopped.Dispose();
            Kept.Dispose();
        }
    }
}
