using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>Which biases train beside the factors.</summary>
public enum BiasTraining
{
    None,

    /// <summary>Every bias of the model.</summary>
    All,

    /// <summary>The biases of the adapted layers.</summary>
    LoraOnly,
}

/// <summary>Low-rank adaptation: y = W·x + (α/r)·B·A·x, with W frozen.</summary>
/// <remarks>Hu et al. 2021, arXiv:2106.09685, §4.1. B starts at zero, so training starts at the base model.</remarks>
[Method(
    "LoRA",
    "Low-rank adaptation: frozen weights plus a trained product of two thin matrices per layer.",
    "Most fine-tuning: a small fraction of the memory of full fine-tuning, files of megabytes, and one base model that serves many adapters.",
    Paper = "Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models",
    Arxiv = "2106.09685")]
public sealed record LoraConfig : AdapterConfig, IValidatableObject
{
    [Description("Rank r of the update."), Range(1, 65_536)]
    public int Rank { get; init; } = 16;

    [Description("Scale α; the update is multiplied by α/r."), Range(1e-3, 1e6)]
    public double Alpha { get; init; } = 32;

    [Description("Multiply by α/√r instead of α/r (rank-stabilised LoRA, arXiv:2312.03732).")]
    public bool UseRslora { get; init; }

    [Description("Share of the inputs of A that is dropped in training."), Range(0, 0.99)]
    public double Dropout { get; init; }

    [Description("Layers to adapt: a list of module name endings, a regular expression over whole module names, or all-linear (every linear layer but the output head).")]
    public ModuleSelector TargetModules { get; init; } = ModuleSelector.AllLinear;

    [Description("Layers to leave alone, selected in the same way; null: none.")]
    public ModuleSelector? ExcludeModules { get; init; }

    [Description("Other ranks for some layers: regular expression over module names → rank."), ItemRange(1, 65_536)]
    public IReadOnlyDictionary<string, int> RankPattern { get; init; } = new Dictionary<string, int>();

    [Description("Other scales for some layers: regular expression over module names → α."), ItemRange(1e-3, 1e6)]
    public IReadOnlyDictionary<string, double> AlphaPattern { get; init; } = new Dictionary<string, double>();

    [Description("Modules that train in full and are saved with the adapter, such as embed_tokens or lm_head.")]
    public IReadOnlyList<string> ModulesToSave { get; init; } = [];

    [Description("Biases that train: none, all, or those of adapted layers (lora_only).")]
    public BiasTraining Bias { get; init; } = BiasTraining.None;

    public override Adapter Attach(CausalLm model, int seed)
    {
        if (From is null)
        {
            return new LoraAdapter(model, this, LoraPlan.Create(this, model.Config), seed);
        }

        var config = PeftFolder.Open(From).Reconcile(this, model.Config);
        var adapter = new LoraAdapter(model, config, LoraPlan.Create(config, model.Config), seed);
        try
        {
            adapter.Load(From);
            return adapter;
        }
        catch (TrainingException)
        {
            adapter.Dispose();
            throw;
        }
    }

    public override IReadOnlyList<SpecError> Check(ModelConfig model) => LoraChecks.Of(this, model);

    public override IReadOnlyList<TrainedShape> Trained(ModelConfig model)
    {
        var plan = LoraPlan.Create(this, model);
        var inPlace = plan.Biases.Concat(plan.FullWeights).ToHashSet();
        return
        [
            .. plan.Layers.SelectMany(layer => new TrainedShape[]
            {
                new([layer.Rank, layer.In], TensorRole.Weight, IsAdded: true),
                new([layer.Out, layer.Rank], TensorRole.OutputFactor, IsAdded: true),
            }),
            .. model.Weights.Where(weight => inPlace.Contains(weight.Name)).Select(TrainedShape.InPlace),
        ];
    }

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext) =>
        FaultyKeys(RankPattern.Keys, nameof(RankPattern)).Concat(FaultyKeys(AlphaPattern.Keys, nameof(AlphaPattern)));

    private static IEnumerable<ValidationResult> FaultyKeys(IEnumerable<string> keys, string member) =>
        from key in keys
        let fault = ModulePattern.Fault(key)
        where fault is not null
        select new ValidationResult($"has the key '{key}', which is not a valid regular expression: {fault}", [member]);
}
