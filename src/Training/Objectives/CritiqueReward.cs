using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>A reward model that writes a critique of an answer and scores the answer after it.</summary>
/// <remarks>
/// One body with two heads: the output head learns the critiques of people, and the score head reads the last token of (prompt, answer, critique), with the
/// people's critique in training and the model's own in use (<see cref="Scoring.CritiqueScorer"/>). The publication's score head is Linear, tanh, Linear with
/// dropout; here it is one of <see cref="ScoreLayers"/>, without dropout, which would score the two answers of a pair under different masks.
/// </remarks>
[Method(
    "Critique-based reward model",
    "Writes a critique of each answer and scores the answer after it: Bradley-Terry on the scores, cross-entropy on the critiques.",
    "Reward models whose scores can be read up on, where people or a strong model wrote down what is good and bad about the answers.",
    Paper = "Zhang et al. 2025, MM-RLHF: The Next Step Forward in Multimodal LLM Alignment, section 4",
    Arxiv = "2502.10391")]
public sealed record CritiqueRewardConfig : ObjectiveConfig
{
    [Description("Layers of the score head: linear, or mlp (two layers with SiLU).")]
    public ScoreLayers ScoreLayers { get; init; } = ScoreLayers.Linear;

    [Description("Weight of the loss of the scores."), Range(0, 1000)]
    public double ScoreWeight { get; init; } = 1;

    [Description("Weight of the cross-entropy of the critiques: mean over the tokens of each, summed over the two of a pair."), Range(0, 1000)]
    public double CritiqueWeight { get; init; } = 1;

    [Description("Weight of (chosen - rejected)² of rows that are marked as ties, which takes the place of their score loss."), Range(0, 1000)]
    public double TieWeight { get; init; } = 1;

    [Description("Weight of (chosen + rejected)², which keeps the mean of the rewards near zero; 0: off. 0.01 is the advised value."), Range(0, 10)]
    public double CenterRewardsCoefficient { get; init; }

    internal override RowUse Use => RowUse.Critiques;

    internal override ScoreHead Score => new(ScoreLayers) { KeepsTokens = true };

    internal override string Accuracy => "accuracy";

    internal override IReadOnlyList<string> Figures => ["margin", "chosen_reward", "rejected_reward", "critique_loss"];

    /// <summary>Pairs.</summary>
    public override long Weight(Batch batch) => batch.Examples.Count;

    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var hidden = BatchInput.HiddenStates(model, batch, device);   // [2N, T, D]
        var rewards = model.Score(BatchInput.LastOf(hidden, batch, device)).squeeze(1);
        var pairs = batch.Examples.Count;
        var (chosen, rejected) = (rewards.narrow(0, 0, pairs), rewards.narrow(0, pairs, pairs));
        var margins = DeviceCopy.To(tensor(batch.Examples.Select(example => example.Value ?? 0).ToArray()), device);
        var ties = DeviceCopy.To(tensor(batch.Examples.Select(example => example.IsTie).ToArray()), device);
        var critiques = CritiqueLoss(model, hidden, batch, device);
        var sum = (ScoreLosses(chosen, rejected, margins, ties).sum() * ScoreWeight)
            + (CenterRewardsCoefficient * (chosen + rejected).square().sum()) + (CritiqueWeight * critiques);
        using var noGrad = no_grad();
        var lead = chosen - rejected;
        return new(
            sum.MoveToOuterDisposeScope(),
            where(ties, lead.abs().lt(Math.Log(3)), lead.gt(0)).sum().MoveToOuterDisposeScope(),   // a tie is told when σ(lead) is nearer to ½ than to 0 and 1
            stack([lead.sum(), chosen.sum(), rejected.sum(), critiques]).detach().MoveToOuterDisposeScope());
    }

    /// <summary>−log σ(r_chosen − r_rejected − margin) of each pair; TieWeight·(r_chosen − r_rejected)² of a tie.</summary>
    /// <returns>[N], in the caller's dispose scope.</returns>
    internal Tensor ScoreLosses(Tensor chosen, Tensor rejected, Tensor margins, Tensor ties)
    {
        using var scope = NewDisposeScope();
        return where(ties, TieWeight * (chosen - rejected).square(), BradleyTerry.Losses(chosen, rejected, margins)).MoveToOuterDisposeScope();
    }

    /// <summary>Sum over the batch's critiques of the mean cross-entropy of their tokens.</summary>
    /// <returns>Float32 scalar with gradient, nats, in the caller's dispose scope.</returns>
    private static Tensor CritiqueLoss(CausalLm model, Tensor hidden, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var targets = TokenLoss.Targets(batch.Labels, batch.Length);
        var labelled = Enumerable.Range(0, targets.Length).Where(index => targets[index] != Example.Ignored).ToArray();
        var tokens = labelled.CountBy(index => index / batch.Length).ToDictionary();
        var rows = hidden.reshape(-1, hidden.shape[^1]).index_select(0, DeviceCopy.To(tensor(labelled), device));
        var wanted = DeviceCopy.To(tensor(Array.ConvertAll(labelled, index => targets[index])), device);
        var shares = DeviceCopy.To(tensor(Array.ConvertAll(labelled, index => 1f / tokens[index / batch.Length])), device);
        return (LinearCrossEntropy.PerRow(rows, model.HeadWeight, wanted, BackwardPass.OfThisThread) * shares).sum().MoveToOuterDisposeScope();
    }
}
