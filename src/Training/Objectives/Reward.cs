using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>A reward model from pairs of answers, of which the chosen one shall score higher.</summary>
[Method(
    "Reward model",
    "A score for whole answers, trained so that the chosen answer of each pair scores higher (Bradley-Terry).",
    "Ranking answers, best-of-n, filtering data, and reinforcement learning, where people or rules said which of two answers is better.",
    Paper = "Ouyang et al. 2022, Training language models to follow instructions with human feedback, equation 1",
    Arxiv = "2203.02155")]
public sealed record RewardConfig : ObjectiveConfig, IValidatableObject
{
    [Description("Layers of the score head: linear, or mlp (two layers with SiLU).")]
    public ScoreLayers ScoreLayers { get; init; } = ScoreLayers.Linear;

    [Description("Weight of (chosen + rejected)², which keeps the mean of the rewards near zero; 0: off. 0.01 is the advised value."), Range(0, 10)]
    public double CenterRewardsCoefficient { get; init; }

    [Description("Score heads with first weights of their own, trained side by side: the reward is their mean, their standard deviation the disagreement."), Range(1, 64)]
    public int EnsembleSize { get; init; } = 1;

    [Description("Whether each head of an ensemble sees a choice of its own of the pairs, drawn with replacement; heads then differ in more than their start.")]
    public bool EnsembleBootstrap { get; init; }

    internal override RowUse Use => RowUse.Pairs;

    internal override ScoreHead Score => ScoreHead.Ensemble(ScoreLayers, EnsembleSize);

    internal override string Accuracy => "accuracy";

    internal override IReadOnlyList<string> Figures => EnsembleSize == 1
        ? ["margin", "chosen_reward", "rejected_reward"]
        : ["margin", "chosen_reward", "rejected_reward", "disagreement"];

    /// <summary>Pairs.</summary>
    public override long Weight(Batch batch) => batch.Examples.Count;

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (EnsembleBootstrap && EnsembleSize == 1)
        {
            yield return new("needs an ensemble; set ensemble_size to 2 or more.", [nameof(EnsembleBootstrap), nameof(EnsembleSize)]);
        }
    }

    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var rewards = BatchInput.Scores(model, batch, device);   // [2N, members]
        var pairs = batch.Examples.Count;
        var (chosen, rejected) = (rewards.narrow(0, 0, pairs), rewards.narrow(0, pairs, pairs));
        var margins = DeviceCopy.To(tensor(batch.Examples.Select(example => example.Value ?? 0).ToArray(), [pairs, 1]), device);
        var losses = BradleyTerry.Losses(chosen, rejected, margins, CenterRewardsCoefficient);
        if (EnsembleBootstrap && is_grad_enabled())   // what is measured, and not trained on, counts once
        {
            losses = losses * RewardEnsemble.Draws(batch.Examples, EnsembleSize, device);
        }

        var sum = losses.sum() / EnsembleSize;
        using var noGrad = no_grad();
        var (better, worse) = (chosen.mean([1]), rejected.mean([1]));
        List<Tensor> figures = [(better - worse).sum(), better.sum(), worse.sum()];
        if (EnsembleSize > 1)
        {
            // Of the margin: each member's rewards have a level of their own, which pairs do not tell.
            figures.Add(RewardEnsemble.Read(chosen - rejected).Disagreement!.sum());
        }

        return new(
            sum.MoveToOuterDisposeScope(),
            better.gt(worse).sum().MoveToOuterDisposeScope(),   // a tie is wrong
            stack(figures).detach().MoveToOuterDisposeScope());
    }
}
