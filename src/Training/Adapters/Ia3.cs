using System.ComponentModel;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>(IA)³: one trained factor for each output of a layer, or for each input of the second layer of a feed-forward block.</summary>
/// <remarks>Liu et al. 2022, arXiv:2205.05638, §3.3; PEFT 0.20.0, <c>tuners/ia3</c>. The factors start at one, so training starts at the base model.</remarks>
[Method(
    "(IA)³",
    "Infused adapter by inhibiting and amplifying inner activations: one trained factor for each key, value and hidden unit.",
    "Few examples and the fewest trained numbers; wants a learning rate of about 3e-3.",
    Paper = "Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
    Arxiv = "2205.05638",
    Parameters = "out per layer, in for feed-forward layers")]
[PeftType("IA3")]
[PeftConstant("init_ia3_weights", "true")]
public sealed record Ia3Config : LayerAdapterConfig
{
    /// <summary>Key of the factors: [out, 1], in feed-forward layers [1, in].</summary>
    internal const string Factor = "ia3_l";

    private const string PeftFeedforward = "feedforward_modules";

    public Ia3Config() => TargetModules = ModuleSelector.OfNames(["k_proj", "v_proj", "down_proj"]);

    [Description("Those of the layers whose inputs are scaled instead of their outputs, selected in the same way; null: none.")]
    public ModuleSelector? FeedforwardModules { get; init; } = ModuleSelector.OfNames(["down_proj"]);

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
        [new(Factor, ScalesInputs(layer) ? [1, layer.In] : [layer.Out, 1])];

    internal override AdaptedLinear Wrap(LayerParts parts) => new Ia3Linear(parts, ScalesInputs(parts.Shape));

    internal override bool PeftNumbersLayers => false;

    /// <inheritdoc/>
    /// <remarks>PEFT refuses names of feed-forward layers that are no targets.</remarks>
    internal override void ToPeft(JsonObject fields)
    {
        fields["fan_in_fan_out"] = false;
        fields[PeftFeedforward] = FeedforwardModules switch
        {
            null => new JsonArray(),
            { IsAllLinear: true } => ".*",
            { Names: { } names } when TargetModules.Names is { } targets => new JsonArray(
                [.. names.Where(name => targets.Any(target => TargetSelection.Means(target, name) || TargetSelection.Means(name, target)))]),
            _ => fields[PeftFeedforward]?.DeepClone(),
        };
    }

    /// <inheritdoc/>
    internal override void FromPeft(JsonObject fields, JsonObject members)
    {
        if (fields[PeftFeedforward] is null or JsonArray { Count: 0 })
        {
            fields.Remove(PeftFeedforward);
            members[PeftFeedforward] = null;
        }
    }

    private bool ScalesInputs(LinearShape layer) => FeedforwardModules?.Selects(layer.Name) ?? false;
}

/// <summary>y = l∘(W·x + b), or y = W·(l∘x) + b. The factors multiply in float32, also over a bfloat16 model.</summary>
internal sealed class Ia3Linear(LayerParts parts, bool scalesInputs) : AdaptedLinear(parts)
{
    private Parameter Factor => Own(Ia3Config.Factor);

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return (FrozenWeight() * (Factor - 1)).MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start) => Factor.fill_(1);

    public override void MergeBias()
    {
        if (!scalesInputs)
        {
            FrozenBias?.mul_(Factor.squeeze(1));
        }
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        return (scalesInputs ? BaseLayer.forward(Scaled(x)) : Scaled(BaseLayer.forward(x))).MoveToOuterDisposeScope();
    }

    private Tensor Scaled(Tensor values) => (values * Factor.flatten()).to(values.dtype);
}
