using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>Norm tuning: the weights of the norms train in place, and nothing else.</summary>
/// <remarks>Zhao et al. 2023, arXiv:2312.11420; PEFT 0.20.0, <c>tuners/ln_tuning</c>.</remarks>
[Method(
    "LN tuning",
    "The weights of the norms train in place, and nothing else.",
    "The fewest trained numbers of all, and no cost in use; for changes of style and domain rather than for new knowledge.",
    Paper = "Zhao et al. 2023, Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
    Arxiv = "2312.11420",
    Parameters = "width of the model per norm")]
[PeftType("LN_TUNING")]
public sealed record LnTuningConfig : LayerAdapterConfig
{
    /// <summary>Stands between a norm's name and its weight's in the keys.</summary>
    internal const string Owner = "ln_tuning_layers";

    /// <summary>The norms, each with one weight of a single axis.</summary>
    internal override IReadOnlyList<LinearShape> Candidates(ModelConfig model) =>
    [
        .. model.Weights.Where(weight => weight is { IsLinear: false, Shape.Length: 1 } && weight.Name.EndsWith(".weight", StringComparison.Ordinal))
            .Select(weight => new LinearShape(LayerPlan.ModuleOf(weight.Name), Out: weight.Shape[0], In: 1)),
    ];

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) => [new(Owner + ".weight", [layer.Out])];

    internal override bool PeftNumbersLayers => false;

    internal override AdaptedLinear Wrap(LayerParts parts) => throw new InvalidOperationException("Norms train in place; nothing stands beside a layer.");

    internal override LayerAdapter Build(CausalLm model, LayerPlan plan) => new NormAdapter(model, this, plan);

    public override IReadOnlyList<TrainedShape> Trained(ModelConfig model)
    {
        var plan = LayerPlan.Create(this, model);
        var full = plan.FullWeights.ToHashSet();
        return [.. model.Weights.Where(weight => full.Contains(weight.Name)).Concat(WeightsOf(plan, model)).Select(TrainedShape.InPlace)];
    }

    /// <summary>All that the chosen norms own: some have a bias, too.</summary>
    internal static IEnumerable<WeightShape> WeightsOf(LayerPlan plan, ModelConfig model)
    {
        var norms = plan.Layers.Select(norm => norm.Name).ToHashSet();
        return model.Weights.Where(weight => norms.Contains(LayerPlan.ModuleOf(weight.Name)));
    }
}

/// <summary>Norms whose weights train in the model's own number format; they keep their trained values when the adapter goes.</summary>
internal sealed class NormAdapter : LayerAdapter
{
    public NormAdapter(CausalLm model, LnTuningConfig config, LayerPlan plan)
        : base(model, config, plan with { Layers = [] }) =>
        TrainInPlace(LnTuningConfig.WeightsOf(plan, model.Config).Select(weight =>
            (weight.Name, weight.Name.Insert(weight.Name.LastIndexOf('.'), "." + LnTuningConfig.Owner))));
}
