using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Direct preference optimisation: the chosen answer of each pair becomes likelier than the rejected one, measured against the base model.</summary>
[Method(
    "DPO",
    "Direct preference optimisation: the chosen answer of each pair becomes likelier than the rejected one, measured against the base model.",
    "Aligning a model that answers well already with pairs of answers, without a reward model and without sampling.",
    Paper = "Rafailov et al. 2023, Direct Preference Optimization: Your Language Model is Secretly a Reward Model, equation 7",
    Arxiv = "2305.18290")]
public sealed record DpoConfig : ReferencedConfig, IValidatableObject
{
    [Description("What is minimised: sigmoid, hinge, ipo, robust, sigmoid_norm, sppo_hard, apo_zero or apo_down.")]
    public DpoLoss Loss { get; init; } = DpoLoss.Sigmoid;

    [Description("Share of pairs that are taken to be the wrong way round, for loss sigmoid (conservative DPO) and robust."), Range(0, 0.49)]
    public double LabelSmoothing { get; init; }

    [Description("Weight γ of the cross-entropy per token of the chosen answer, which is added to the loss; 0: off."), Range(0, 100)]
    public double SftWeight { get; init; }

    [Description("How much of β is added for pairs whose column margin is large: β·(1 + w·(1 - e^(-k·margin))); w = 0: off."), Range(0, 100)]
    public double DynamicBetaWeight { get; init; }

    [Description("How fast β grows with the margin, k; read where dynamic_beta_weight is above 0."), Range(1e-4, 1e4)]
    public double DynamicBetaRate { get; init; } = 0.5;

    internal override RowUse Use => RowUse.Pairs;

    internal override int AnswersPerExample => 2;

    internal override int PassesBeside => PrecomputeReference ? 0 : 1;

    internal override string Accuracy => PairFigures.Accuracy;

    internal override IReadOnlyList<string> Figures => PairFigures.Names;

    /// <summary>Pairs.</summary>
    public override long Weight(Batch batch) => batch.Examples.Count;

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (LabelSmoothing > 0 && Loss is not (DpoLoss.Sigmoid or DpoLoss.Robust))
        {
            yield return new("is read by loss sigmoid and robust alone; set it to 0, or choose one of them.", [nameof(LabelSmoothing), nameof(Loss)]);
        }
    }

    internal override Tensor Answers(CausalLm model, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        return AnswerLogProbs.Of(model, batch, device).view(2, -1).t().MoveToOuterDisposeScope();
    }

    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var reference = References(model, adapter, batch, device);   // before the policy's pass, whose activations stay
        var policy = Answers(model, batch, device);                  // [N, 2]
        var (chosen, rejected) = (policy.select(1, 0), policy.select(1, 1));
        var lengths = AnswerLogProbs.Lengths(batch, device).view(2, -1);
        var ratios = policy - (reference ?? policy.detach());
        var beta = BetaOf(batch, device);
        var losses = PreferenceLosses.Dpo(Loss, ratios.select(1, 0), ratios.select(1, 1), beta, LabelSmoothing, lengths[0], lengths[1]);
        if (SftWeight > 0)
        {
            losses = losses - (SftWeight * chosen / lengths[0]);
        }

        var sum = losses.sum();
        using var noGrad = no_grad();
        var rewards = beta * ratios.detach().t();   // [2, N]
        var figures = PairFigures.Of(rewards[0], rewards[1], chosen, rejected);
        return new(sum.MoveToOuterDisposeScope(), figures.Correct.MoveToOuterDisposeScope(), figures.Sums.MoveToOuterDisposeScope());
    }

    /// <returns>β of each pair, [N].</returns>
    private Tensor BetaOf(Batch batch, Device device)
    {
        using var noGrad = no_grad();
        var margins = DeviceCopy.To(tensor(batch.Examples.Select(example => example.Value ?? 0).ToArray()), device);
        return PreferenceLosses.DynamicBeta(margins, Beta, DynamicBetaWeight, DynamicBetaRate);
    }
}

/// <summary>What preference objectives on pairs measure, by the names that TRL gives it.</summary>
internal static class PairFigures
{
    /// <summary>Share of pairs whose chosen answer has the greater reward; equal ones are wrong.</summary>
    public const string Accuracy = "rewards/accuracies";

    public static readonly IReadOnlyList<string> Names = ["rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"];

    /// <param name="chosenRewards">[N], without gradient, as <paramref name="rejectedRewards"/>.</param>
    /// <param name="chosen">Log-probabilities, [N], as <paramref name="rejected"/>.</param>
    /// <returns>In the caller's dispose scope.</returns>
    public static (Tensor Correct, Tensor Sums) Of(Tensor chosenRewards, Tensor rejectedRewards, Tensor chosen, Tensor rejected) => (
        chosenRewards.gt(rejectedRewards).sum(),
        stack([chosenRewards.sum(), rejectedRewards.sum(), (chosenRewards - rejectedRewards).sum(), chosen.detach().sum(), rejected.detach().sum()]));
}
