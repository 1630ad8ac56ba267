using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Verdicts on the answers of the golden pairs: the chosen ones are good, the rejected ones bad.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class KtoTests
{
    private readonly IExamples _rows = new KtoConfig().Arranged(ChosenExamples.LongestFirst(Verdicts()), maxLength: 64);

    public KtoTests() => set_num_threads(1);

    [Fact]
    public void Each_prompt_gets_the_answer_of_the_nearest_row_before_it_with_another_prompt()
    {
        Example[] rows =
        [
            Row([1, 2], [10]), Row([1, 2], [11]), Row([3], [12, 13]), Row([4], [14]),
        ];

        var arranged = new KtoConfig().Arranged(new ChosenExamples(rows, [0, 1, 2, 3]), maxLength: 9);

        Assert.Equal([[14], [14], [11], [12, 13]], arranged.Select(row => row.Unrelated!));
        Assert.Equal(4, arranged.Count);
        Assert.Equal(3, arranged.LengthOf(2));
        Assert.Equal([11], new KtoConfig().Arranged(new ChosenExamples(rows, [0, 1]), 9)[0].Unrelated!);   // one prompt is all there is
        Assert.Equal([12], new KtoConfig().Arranged(new ChosenExamples(rows, [2, 3]), 2)[1].Unrelated!);        // cut
        Assert.Equal([10], new KtoConfig().Arranged(new ChosenExamples(rows, [0]), 9)[0].Unrelated!);
    }

    /// <summary>The adapter as it is makes unrelated answers less likely, so z is 0; turned round, it makes them likelier.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(-1)]
    public void The_loss_has_the_mean_ratio_of_mixed_rows_as_its_reference_point(int sign)
    {
        using var scope = NewDisposeScope();
        using var golden = new GoldenPreferences();
        using var model = GoldenPreferences.Model();
        using var adapter = new LoraConfig { From = GoldenPreferences.AdapterFolder }.Attach(model, seed: 0);
        using (no_grad())
        {
            adapter.Trainable.Where(tensor => tensor.Name.Contains("lora_B", StringComparison.Ordinal)).ToList().ForEach(tensor => tensor.Parameter.mul_(sign));
        }

        using var parameters = new FlatParameters(adapter.Trainable);
        var kl = Math.Max(0, Ratios(model, adapter, row => Row(PromptOf(row), [.. row.Unrelated!])).Average());
        var ratios = Ratios(model, adapter, row => row);
        bool[] good = [.. _rows.Select(row => row.Value == 1)];
        var losses = ratios.Select((ratio, row) => good[row] ? 1 - Sigmoid(0.1 * (ratio - kl)) : 1.33 * (1 - Sigmoid(0.1 * (kl - ratio))));

        var step = TrainingStep.Backward(model, adapter, new KtoConfig { UndesirableWeight = 1.33 }, parameters, Batches(8), CPU);

        Assert.Equal(sign < 0, kl > 0.1);
        Assert.Equal(losses.Average(), step.Loss, 1e-6);
        Assert.Equal(ratios.Where((ratio, row) => good[row] ? ratio > kl : ratio < kl).Count() / 8.0, step.Accuracy);
        var figures = new KtoConfig().Derive(step.Figures).ToDictionary();
        Assert.Equal(0.1 * ratios.Where((_, row) => good[row]).Average(), figures["rewards/chosen"], 1e-6);
        Assert.Equal(0.1 * ratios.Where((_, row) => !good[row]).Average(), figures["rewards/rejected"], 1e-6);
        Assert.Equal(kl, figures["kl"], 1e-5);
        if (sign > 0)
        {
            var policy = golden.Numbers("policy_logps");
            Assert.Equal([policy.Take(4).Average(), policy.Skip(4).Average()], [figures["logps/chosen"], figures["logps/rejected"]], new Near(1e-6));
        }
    }

    [Fact]
    public void Before_the_first_step_every_loss_is_a_half()
    {
        using var scope = NewDisposeScope();
        using var model = GoldenPreferences.Model();
        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 1);
        using var parameters = new FlatParameters(adapter.Trainable);

        var step = TrainingStep.Backward(model, adapter, new KtoConfig(), parameters, Batches(3), CPU);

        Assert.Equal(0.5, step.Loss, 1e-7);
        Assert.Equal(0, step.Accuracy);
        Assert.Equal(0, step.Figures[5]);
    }

    /// <summary>The parts of KIND are gated by the batch; the rows that are looked at beside it have another shape.</summary>
    [Fact]
    public void Parts_by_class_and_recomputed_layers_meet_the_batch_and_not_the_rows_beside_it()
    {
        using var scope = NewDisposeScope();
        using var model = GoldenPreferences.Model();
        using var adapter = new KindConfig { Classes = ["a", "b"], Learngenes = 3, Tailors = 2 }.Attach(model, seed: 1);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = new SgdConfig().Create(parameters);
        var rows = new ExtendedExamples(new ChosenExamples([.. _rows], [.. Enumerable.Range(0, 8)]), (index, row) => row with { Class = index % 2 });
        var plan = BatchPlan.ForEvaluation(rows, 8, padId: 0);
        var batch = plan.Collate(plan.ForEpoch(0)[0]);
        StepResult Step() => TrainingStep.Backward(model, adapter, new KtoConfig { Beta = 1 }, parameters, [batch], CPU);
        Step();
        optimizer.Step(0.05);

        var kept = Step();
        model.Checkpointing = ActivationCheckpointing.Full;
        var recomputed = Step();

        Assert.NotEqual(0.5, kept.Loss, 1e-4);
        Assert.Equal(kept.Loss, recomputed.Loss);
        Assert.Equal(kept.GradNorm, recomputed.GradNorm);
    }

    [Fact]
    public void A_figure_of_a_verdict_that_no_row_has_is_left_out()
    {
        using var model = GoldenPreferences.Model();
        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 1);
        List<Example> good = [.. _rows.Where(row => row.Value == 1)];

        var measured = Evaluation.Run(model, adapter, new KtoConfig(), good, 2, 0, CPU, TestContext.Current.CancellationToken);

        Assert.Equal(
            ["eval/loss", "eval/rewards/accuracies", "eval/rewards/chosen", "eval/logps/chosen", "eval/kl"],
            measured.Named(new KtoConfig()).Select(figure => figure.Key));
    }

    [Fact]
    public void Steps_leak_no_tensor()
    {
        using var model = GoldenPreferences.Model();
        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 1);
        using var parameters = new FlatParameters(adapter.Trainable);
        void Step() => TrainingStep.Backward(model, adapter, new KtoConfig(), parameters, Batches(5), CPU);
        Step();
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (var count = 0; count < 5; count++)
        {
            Step();
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    /// <summary>log π - log π_ref of rows made of these, computed one by one.</summary>
    private double[] Ratios(Training.Models.CausalLm model, Adapter adapter, Func<Example, Example> made)
    {
        using var noGrad = no_grad();
        return [.. _rows.Select(row =>
        {
            using var scope = NewDisposeScope();
            var plan = BatchPlan.ForEvaluation([made(row)], 1, 0);
            var batch = plan.Collate(plan.ForEpoch(0)[0]);
            double policy = AnswerLogProbs.Of(model, batch, CPU).item<float>();
            using var off = adapter.SwitchOff();
            return policy - AnswerLogProbs.Of(model, batch, CPU).item<float>();
        })];
    }

    private static int[] PromptOf(Example row) => [.. row.InputIds.Take(row.Labels.TakeWhile(label => label == Example.Ignored).Count())];

    private IReadOnlyList<Batch> Batches(int size)
    {
        var plan = BatchPlan.ForEvaluation(_rows, size, padId: 0);
        return [.. plan.ForEpoch(0).Select(plan.Collate)];
    }

    /// <summary>The good answers of all pairs, then the bad ones.</summary>
    private static List<Example> Verdicts() =>
    [
        .. Enumerable.Range(0, 2).SelectMany(part => GoldenPairs.Examples().Select(pair =>
        {
            var (start, end) = part == 0 ? (0, pair.Ends![0]) : (pair.Ends![0], pair.Ends[1]);
            return new Example(pair.InputIds[start..end], pair.Labels[start..end], pair.Row) { Value = 1 - part };
        })),
    ];

    private static Example Row(int[] prompt, int[] answer) =>
        new([.. prompt, .. answer], [.. prompt.Select(_ => Example.Ignored), .. answer], Row: 1);

    private static double Sigmoid(double x) => 1 / (1 + Math.Exp(-x));
}
