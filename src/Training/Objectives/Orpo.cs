using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Odds ratio preference optimisation: fine-tuning on the chosen answers, and odds that tell them from the rejected ones.</summary>
[Method(
    "ORPO",
    "Odds ratio preference optimisation: fine-tuning on the chosen answers with a term that makes their odds greater than those of the rejected ones.",
    "Pairs for a base model that was not fine-tuned before: one stage in place of two, and no reference model.",
    Paper = "Hong et al. 2024, ORPO: Monolithic Preference Optimization without Reference Model, equation 6",
    Arxiv = "2403.07691")]
public sealed record OrpoConfig : ObjectiveConfig
{
    [Description("Weight of the odds ratio term (λ of the paper)."), Range(1e-4, 100)]
    public double Beta { get; init; } = 0.1;

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
        var sum = ((Beta * PreferenceLosses.OddsRatio(chosen, rejected)) - chosen).sum();
        using var noGrad = no_grad();
        var rewards = Beta * perToken.detach();
        var figures = PairFigures.Of(rewards[0], rewards[1], chosen, rejected);
        return new(sum.MoveToOuterDisposeScope(), figures.Correct.MoveToOuterDisposeScope(), figures.Sums.MoveToOuterDisposeScope());
    }
}
