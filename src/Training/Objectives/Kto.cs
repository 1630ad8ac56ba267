using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Kahneman-Tversky optimisation: answers that are called good become likelier and bad ones less likely, measured against the base model.</summary>
[Method(
    "KTO",
    "Kahneman-Tversky optimisation: answers that are called good become likelier and bad ones less likely, measured against the base model.",
    "Feedback of the thumb, up or down, on single answers; pairs are not needed.",
    Paper = "Ethayarajh et al. 2024, KTO: Model Alignment as Prospect Theoretic Optimization, equation 8",
    Arxiv = "2402.01306")]
public sealed record KtoConfig : ReferencedConfig
{
    [Description("Weight of good answers in the loss."), Range(0, 1000)]
    public double DesirableWeight { get; init; } = 1;

    [Description("Weight of bad answers in the loss; number of good answers times their weight over that of bad ones should be between 1 and 1.33."), Range(0, 1000)]
    public double UndesirableWeight { get; init; } = 1;

    internal override RowUse Use => RowUse.Verdicts;

    /// <summary>The row's own, and the one of another prompt.</summary>
    internal override int AnswersPerExample => 2;

    /// <summary>The model over the other answers, and the reference over both.</summary>
    internal override int PassesBeside => PrecomputeReference ? 1 : 3;

    internal override string Accuracy => PairFigures.Accuracy;

    /// <summary>Sums over good and over bad answers; how many are good; z.</summary>
    internal override IReadOnlyList<string> Figures => ["rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected", "desirable", "kl"];

    /// <inheritdoc/>
    /// <remarks>Means over good answers and over bad ones, left out where there are none.</remarks>
    internal override IEnumerable<KeyValuePair<string, double>> Derive(IReadOnlyList<double> means)
    {
        double[] shares = [means[4], 1 - means[4], means[4], 1 - means[4]];
        return shares.Select((share, index) => KeyValuePair.Create(Figures[index], means[index] / share))
            .Where((_, index) => shares[index] > 0)
            .Append(KeyValuePair.Create(Figures[5], means[5]));
    }

    /// <summary>Rows.</summary>
    public override long Weight(Batch batch) => batch.Examples.Count;

    internal override IExamples Arranged(IExamples examples, int maxLength) => UnrelatedAnswers.AddTo(examples, maxLength);

    internal override Tensor Answers(CausalLm model, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var (own, unrelated) = (AnswerLogProbs.Of(model, batch, device), AnswerLogProbs.Of(model, Unrelated(batch), device));
        return stack([own, unrelated], dim: 1).MoveToOuterDisposeScope();
    }

    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var reference = References(model, adapter, batch, device);
        var kl = reference is null ? zeros([], dtype: ScalarType.Float32, device: device) : KlOf(model, adapter!, batch, device, reference);
        var policy = AnswerLogProbs.Of(model, batch, device);   // last: its activations stay
        var ratios = policy - (reference?.select(1, 0) ?? policy.detach());
        var desirable = DeviceCopy.To(tensor(batch.Examples.Select(example => example.Value > 0.5f).ToArray()), device);
        var sum = PreferenceLosses.Kto(ratios, desirable, kl, Beta, DesirableWeight, UndesirableWeight).sum();
        using var noGrad = no_grad();
        var correct = where(desirable, ratios.gt(kl), ratios.lt(kl)).sum();
        var values = stack([Beta * ratios.detach(), policy.detach()]);   // [2, N]
        var (good, bad) = (values.mul(desirable).sum(dim: 1), values.mul(desirable.logical_not()).sum(dim: 1));
        var sums = stack([good[0], bad[0], good[1], bad[1], desirable.sum().to_type(ScalarType.Float32), kl * batch.Examples.Count]);
        return new(sum.MoveToOuterDisposeScope(), correct.MoveToOuterDisposeScope(), sums.MoveToOuterDisposeScope());
    }

    /// <summary>The reference point z, a scalar without gradient, in the caller's dispose scope.</summary>
    private static Tensor KlOf(CausalLm model, Adapter adapter, Batch batch, Device device, Tensor reference)
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        var unrelated = Unrelated(batch);
        using var seen = adapter.BeginBatch(unrelated);
        return PreferenceLosses.ReferencePoint(AnswerLogProbs.Of(model, unrelated, device), reference.select(1, 1)).MoveToOuterDisposeScope();
    }

    /// <summary>The prompts of a batch, each with the answer of another one.</summary>
    private static Batch Unrelated(Batch batch)
    {
        List<Example> mixed = [.. batch.Examples.Select(example =>
        {
            var prompt = UnrelatedAnswers.PromptOf(example);
            var answer = example.Unrelated ?? throw new InvalidOperationException("The rows were not arranged for kto.");
            return new Example([.. prompt, .. answer], [.. Enumerable.Repeat(Example.Ignored, prompt.Length), .. answer], example.Row) { Class = example.Class };
        })];
        var plan = BatchPlan.ForEvaluation(mixed, mixed.Count, padId: 0);
        return plan.Collate(plan.ForEpoch(0)[0]);
    }
}
