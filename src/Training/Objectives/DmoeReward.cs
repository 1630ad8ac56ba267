using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Dmoe;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Two layers of experts: a router over task categories, and in each category an expert for each capability, whose last hidden states a small network joins to a reward.</summary>
/// <remarks>A run of several phases, each with rows and a head of its own; <see cref="DmoeRun"/> goes through them.</remarks>
[Method(
    "Double-layer mixture of experts reward model (DMoERM)",
    "A router over task categories, a LoRA expert for each capability of each, and a small network that joins their hidden states to one reward.",
    "Preferences that contradict each other between kinds of tasks, where rows name their category and answers were also compared by single capabilities.",
    Paper = "Quan 2024, DMoERM: Recipes of Mixture-of-Experts for Effective Reward Modeling, section 3",
    Arxiv = "2403.01197")]
public sealed record DmoeRewardConfig : ObjectiveConfig, IValidatableObject
{
    private const int LongestName = 64;

    [Description("Categories that rows name in their column category; at least one."), Length(0, 64)]
    public IReadOnlyList<string> Categories { get; init; } = [];

    [Description("Capabilities that answers are compared by; a category has an expert for each that its rows name. At least one."), Length(0, 64)]
    public IReadOnlyList<string> Capabilities { get; init; } = [];

    [Description("Share of a category's whole comparisons that its experts' common start is trained on; the rest trains what joins them. 0: experts start at the base model."), Range(0, 0.95)]
    public double BaseShare { get; init; } = 0.6;

    [Description("Learning rate of the router; null: the optimizer's, which is that of the experts."), Range(1e-12, 1e3)]
    public double? RouterLearningRate { get; init; }

    [Description("Learning rate of the experts' common start; null: the optimizer's."), Range(1e-12, 1e3)]
    public double? BaseLearningRate { get; init; }

    [Description("Learning rate of the network that joins the experts; null: the optimizer's."), Range(1e-12, 1e3)]
    public double? AggregationLearningRate { get; init; }

    [Description("Passes over its rows of the network that joins the experts; null: schedule decides."), Range(0.01, 10_000)]
    public double? AggregationEpochs { get; init; }

    /// <summary>What is trained now; null: nothing yet, the whole run is meant.</summary>
    internal DmoePhase? Phase { get; init; }

    internal override RowUse Use => RowUse.Capabilities;

    internal override ScoreHead Score => new(ScoreLayers.Linear, Phase?.Stage == DmoeStage.Router ? Categories.Count : 1);

    internal override string Accuracy => "accuracy";

    internal override IReadOnlyList<string> Figures => Phase?.Stage == DmoeStage.Router ? [] : Pairs.Figures;

    private static RewardConfig Pairs { get; } = new();

    /// <summary>Pairs, or prompts.</summary>
    public override long Weight(Batch batch) => batch.Examples.Count;

    internal override PreparedData Choose(PreparedData data) => Phase is { } phase
        ? data with { Train = phase.RowsOf(data.Train, BaseShare, isTraining: true), Validation = phase.RowsOf(data.Validation, BaseShare, isTraining: false) }
        : data;

    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device)
    {
        if (Phase?.Stage != DmoeStage.Router)
        {
            return Pairs.Measure(model, adapter, batch, device);
        }

        using var scope = NewDisposeScope();
        var logits = BatchInput.Scores(model, batch, device);   // [B, categories]
        var wanted = DeviceCopy.To(tensor(batch.Examples.Select(example => (long)NumberOf(example.Category)).ToArray()), device);
        var sum = nn.functional.cross_entropy(logits, wanted, reduction: nn.Reduction.Sum);
        using var noGrad = no_grad();
        return new(sum.MoveToOuterDisposeScope(), logits.argmax(1).eq(wanted).sum().MoveToOuterDisposeScope());
    }

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        foreach (var (name, list) in new[] { (nameof(Categories), Categories), (nameof(Capabilities), Capabilities) })
        {
            if (list.Count == 0)
            {
                yield return new("is empty; name those that the rows have.", [name]);
            }

            if (list.FirstOrDefault(item => !IsName(item)) is { } odd)
            {
                yield return new($"holds \"{odd}\"; a name is 1 to {LongestName} letters, digits, _ and -, because its expert's folder bears it.", [name]);
            }

            if (list.Distinct().Count() < list.Count)
            {
                yield return new("names something twice.", [name]);
            }
        }
    }

    internal int NumberOf(string? category) => Categories.Index().Where(known => known.Item == category).Select(known => known.Index).DefaultIfEmpty(-1).First();

    private static bool IsName(string name) => name.Length is > 0 and <= LongestName && name.All(letter => char.IsAsciiLetterOrDigit(letter) || letter is '_' or '-');
}
