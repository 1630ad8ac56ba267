using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>What a module is chosen by.</summary>
public enum ModuleScore
{
    /// <summary>A gate on its LoRA, trained on rows that the LoRA does not train on.</summary>
    Gates,

    /// <summary>The smallest eigenvalue of the Gram matrix of its rows' gradients.</summary>
    Gram,
}

/// <summary>LoRA on the modules that matter: a differentiable choice over training rows comes first, then plain LoRA on what it chose.</summary>
/// <remarks>
/// Jiang et al. 2025, arXiv:2502.08905. There is no code of the authors to compare with; the paper's differential adaptation matrix is made here by a
/// design of our own, which the method's page describes. The factors start as those of LoRA, so training starts at the base model.
/// </remarks>
[Method(
    "DiffoRA",
    "LoRA on a share of the modules only, chosen before training by gates that learn which of them matter.",
    "A budget of trained numbers that should go where the task needs it, when nobody knows which modules those are.",
    Paper = "Jiang et al. 2025, DiffoRA: Enabling Parameter-Efficient Fine-Tuning via Differential Module Selection",
    Arxiv = "2502.08905",
    Parameters = "r·(in + out) per chosen layer, of which there are ρ times those selected; the estimate counts the largest")]
public sealed record DifforaConfig : LowRankConfig
{
    [Description("ρ: share of the selected layers that gets a LoRA, those of the highest scores."), Range(1e-3, 1.0)]
    public double Rho { get; init; } = 0.5;

    [Description("gates (trained against held-out rows) or gram (smallest eigenvalue of the Gram matrix of the rows' gradients: one pass, no training)."), TrainingOnly]
    public ModuleScore Score { get; init; } = ModuleScore.Gates;

    [Description("Training rows that the choice looks at, at most."), Range(2, 100_000), TrainingOnly]
    public int CalibrationRows { get; init; } = 128;

    [Description("Share of those rows that the gates learn from; the LoRAs beside them learn from the others."), Range(0.01, 0.9), TrainingOnly]
    public double HeldOut { get; init; } = 0.2;

    [Description("How often the gates see these rows."), Range(1, 1000), TrainingOnly]
    public int SearchEpochs { get; init; } = 2;

    [Description("Learning rate of the LoRAs while the gates learn."), Range(1e-7, 1), TrainingOnly]
    public double SearchRate { get; init; } = 5e-4;

    [Description("Learning rate of the gates."), Range(1e-5, 1), TrainingOnly]
    public double GateRate { get; init; } = 1e-2;

    /// <summary>What was measured of each module; null where no choice was made here.</summary>
    internal IReadOnlyList<ScoredModule>? Scores { get; private init; }

    internal override LayerAdapterConfig Published => Plain(times: 1);

    /// <inheritdoc/>
    /// <remarks>Which modules are chosen is not known yet: those with the most numbers are counted, so that nothing that is chosen has more.</remarks>
    public override IReadOnlyList<TrainedShape> Trained(ModelConfig model)
    {
        var layers = LayerPlan.Create(this, model).Layers;
        var largest = layers.OrderByDescending(layer => Select(layer).FactorCount).Take(CountOf(layers.Count)).Select(layer => layer.Name).ToHashSet();
        var chosen = this with { TargetModules = ModuleSelector.OfNames([.. layers.Select(layer => layer.Name).Where(largest.Contains)]), ExcludeModules = null };
        return Trained(model, LayerPlan.Of(chosen, model));   // a pattern may speak of layers that are not chosen
    }

    internal override AdaptedLinear Wrap(LayerParts parts) => new LoraLinear(parts, Select(parts.Shape).Scale, Dropout);

    internal override LayerAdapter Build(CausalLm model, LayerPlan plan) => new DifforaAdapter(model, this, plan);

    /// <inheritdoc/>
    /// <returns>For each layer its gate and its Gram score, [2], float64.</returns>
    internal override IReadOnlyDictionary<string, Tensor> Measure(CausalLm model, IReadOnlyList<LinearShape> layers, Calibration? calibration)
    {
        using var scope = NewDisposeScope();
        using var search = new ModuleSearch(this, model, layers, Calibration.Of(calibration, this));
        var gram = search.GramScores();
        var gates = search.TrainGates();
        return layers.Index().ToDictionary(
            layer => layer.Item.Name, layer => tensor(new[] { gates[layer.Index], gram[layer.Index] }).MoveToOuterDisposeScope());
    }

    internal override LayerAdapterConfig Completed(IReadOnlyList<LinearShape> layers, IReadOnlyDictionary<string, Tensor> measured)
    {
        var scores = layers.Select(layer => measured[layer.Name].data<double>().ToArray()).ToList();
        var chosen = Highest([.. scores.Select(score => score[Score == ModuleScore.Gates ? 0 : 1])], CountOf(layers.Count));
        return this with
        {
            TargetModules = ModuleSelector.OfNames([.. layers.Index().Where(layer => chosen.Contains(layer.Index)).Select(layer => layer.Item.Name)]),
            ExcludeModules = null,
            Scores = [.. layers.Index().Select(layer => new ScoredModule(
                layer.Item.Name, scores[layer.Index][0], scores[layer.Index][1], chosen.Contains(layer.Index)))],
        };
    }

    internal override LayerAdapterConfig Restored(string folder) => PeftFolder.Open(folder).Config;

    /// <summary>Places of the highest scores; of equal ones the earlier.</summary>
    internal static IReadOnlySet<int> Highest(IReadOnlyList<double> scores, int count) =>
        scores.Index().OrderByDescending(score => score.Item).Take(count).Select(score => score.Index).ToHashSet();

    private int CountOf(int layers) => Math.Max(1, (int)Math.Round(Rho * layers));
}

/// <summary>What was measured of a module: an entry of <c>dam.json</c>.</summary>
/// <param name="Gate">σ(g) at the end, in (0, 1).</param>
/// <param name="Gram">Smallest eigenvalue of the Gram matrix, not negative but for rounding.</param>
internal sealed record ScoredModule(string Module, double Gate, double Gram, bool Chosen);
