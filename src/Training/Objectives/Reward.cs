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
public sealed record RewardConfig : ObjectiveConfig
{
    [Description("Layers of the score head: linear, or mlp (two layers with SiLU).")]
    public ScoreLayers ScoreLayers { get; init; } = ScoreLayers.Linear;

    [Description("Weight of (chosen + rejected)², which keeps the mean of the rewards near zero; 0: off. 0.01 is the advised value."), Range(0, 10)]
    public double CenterRewardsCoefficient { get; init; }

    internal override RowUse Use => RowUse.Pairs;

    internal override ScoreHead Score => new(ScoreLayers);

    internal override string Accuracy => "accuracy";

    internal override IReadOnlyList<string> Figures => ["margin", "chosen_reward", "rejected_reward"];

    /// <summary>Pairs.</summary>
    public override long Weight(Batch batch) => batch.Examples.Count;

    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var rewards = BatchInput.Scores(model, batch, device).squeeze(1);   // [2N]
        var pairs = batch.Examples.Count;
        var (chosen, rejected) = (rewards.narrow(0, 0, pairs), rewards.narrow(0, pairs, pairs));
        var margins = DeviceCopy.To(tensor(batch.Examples.Select(example => example.Value ?? 0).ToArray()), device);
        var sum = BradleyTerry.Losses(chosen, rejected, margins, CenterRewardsCoefficient).sum();
        using var noGrad = no_grad();
        return new(
            sum.MoveToOuterDisposeScope(),
            chosen.gt(rejected).sum().MoveToOuterDisposeScope(),   // a tie is wrong
            stack([(chosen - rejected).sum(), chosen.sum(), rejected.sum()]).detach().MoveToOuterDisposeScope());
    }
}
