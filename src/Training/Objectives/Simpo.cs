using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Simple preference optimisation: the chosen answer shall be likelier per token than the rejected one, by a margin.</summary>
[Method(
    "SimPO",
    "Simple preference optimisation: the chosen answer of each pair becomes likelier per token than the rejected one, by a margin.",
    "Pairs for a fine-tuned model where a reference model costs too much, or where dpo makes answers longer.",
    Paper = "Meng et al. 2024, SimPO: Simple Preference Optimization with a Reference-Free Reward, equation 6",
    Arxiv = "2405.14734")]
public sealed record SimpoConfig : ObjectiveConfig
{
    [Description("Factor β of the log-probabilities per token; the paper's values are 2 to 10."), Range(1e-4, 100)]
    public double Beta { get; init; } = 2;

    [Description("Margin γ by which β times the difference shall exceed 0; the paper's values are 0.3 to 1.6."), Range(0, 100)]
    public double Gamma { get; init; } = 1;

    [Description("Weight of the cross-entropy per token of the chosen answer, which is added to the loss; 0: off."), Range(0, 100)]
    public double SftWeight { get; init; }

    internal override RowUse Use => RowUse.Pairs;

    internal override string Accuracy => PairFigures.Accuracy;

    internal override IReadOnlyList<string> Figures => PairFigures.Names;

    /// <summary>Pairs.</summary>
    public override long Weight(Batch batch) => batch.Examples.Count;

    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var perToken = (AnswerLogProbs.Of(model, batch, device) / AnswerLogProbs.Lengths(batch, device)).view(2, -1);   // [2, N]
        var (chosen, rejected) = (perToken[0], perToken[1]);
        var losses = PreferenceLosses.Simpo(chosen, rejected, Beta, Gamma);
        if (SftWeight > 0)
        {
            losses = losses - (SftWeight * chosen);
        }

        var sum = losses.sum();
        using var noGrad = no_grad();
        var rewards = Beta * perToken.detach();
        var figures = PairFigures.Of(rewards[0], rewards[1], chosen, rejected);
        return new(sum.MoveToOuterDisposeScope(), figures.Correct.MoveToOuterDisposeScope(), figures.Sums.MoveToOuterDisposeScope());
    }
}
