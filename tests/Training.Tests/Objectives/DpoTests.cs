using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Numerics;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Log-probabilities, losses, gradients and steps of TRL's DPO trainer on the tiny Llama.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class DpoTests
{
    public DpoTests() => set_num_threads(1);

    [Fact]
    public void Log_probabilities_of_policy_and_reference_are_those_of_TRL()
    {
        using var scope = NewDisposeScope();
        using var golden = new GoldenPreferences();
        using var model = GoldenPreferences.Model();
        using var adapter = Adapter(model);
        using var noGrad = no_grad();
        var batch = GoldenPairs.Batch();

        Assert.Equal(golden.Numbers("policy_logps"), Doubles(AnswerLogProbs.Of(model, batch, CPU)), new Near(1e-6));
        Assert.Equal([10, 12, 7, 9, 8, 6, 12, 3], Doubles(AnswerLogProbs.Lengths(batch, CPU)));
        using (adapter.SwitchOff())
        {
            Assert.Equal(golden.Numbers("reference_logps"), Doubles(AnswerLogProbs.Of(model, batch, CPU)), new Near(1e-6));
        }
    }

    [Fact]
    public void Loss_figures_and_gradients_are_those_of_TRL()
    {
        using var scope = NewDisposeScope();
        using var golden = new GoldenPreferences();
        using var model = GoldenPreferences.Model();
        using var adapter = Adapter(model);
        using var parameters = new FlatParameters(adapter.Trainable);

        var step = TrainingStep.Backward(model, adapter, new DpoConfig(), parameters, [GoldenPairs.Batch()], CPU);

        var expected = golden.Facts.GetProperty("dpo").GetProperty("sigmoid");
        var (chosen, rejected) = (GoldenPreferences.Numbers(expected.GetProperty("chosen_rewards")), GoldenPreferences.Numbers(expected.GetProperty("rejected_rewards")));
        var policy = golden.Numbers("policy_logps");
        Assert.Equal(expected.GetProperty("mean").GetDouble(), step.Loss, 1e-6);
        Assert.Equal(chosen.Zip(rejected).Count(pair => pair.First > pair.Second) / 4.0, step.Accuracy);
        Assert.Equal(
            [chosen.Average(), rejected.Average(), chosen.Average() - rejected.Average(), policy.Take(4).Average(), policy.Skip(4).Average()],
            step.Figures, new Near(1e-6));
        golden.AssertEqual("grad_sigmoid|", adapter, tensor => tensor.Parameter.grad!);
    }

    [Fact]
    public void Gradients_of_ipo_on_sums_are_those_of_TRL()
    {
        using var scope = NewDisposeScope();
        using var golden = new GoldenPreferences();
        using var model = GoldenPreferences.Model();
        using var adapter = Adapter(model);
        using var parameters = new FlatParameters(adapter.Trainable);
        parameters.ZeroGradients();

        var ratios = AnswerLogProbs.Of(model, GoldenPairs.Batch(), CPU) - GoldenPreferences.Floats(golden.Numbers("reference_logps"));
        BackwardPass.OfThisThread.Run(PreferenceLosses.Dpo(DpoLoss.Ipo, ratios.narrow(0, 0, 4), ratios.narrow(0, 4, 4), tensor(0.1f)).mean());

        golden.AssertEqual("grad_ipo|", adapter, tensor => tensor.Parameter.grad!);
    }

    /// <remarks>By hand from the golden log-probabilities: ((Δ_c/|c|) - (Δ_r/|r|) - 5)².</remarks>
    [Fact]
    public void Ipo_divides_by_the_tokens_of_each_answer()
    {
        using var scope = NewDisposeScope();
        using var golden = new GoldenPreferences();
        using var model = GoldenPreferences.Model();
        using var adapter = Adapter(model);
        var ratios = golden.Numbers("policy_logps").Zip(golden.Numbers("reference_logps"), (policy, reference) => policy - reference).ToArray();
        int[] lengths = [10, 12, 7, 9, 8, 6, 12, 3];
        var expected = Enumerable.Range(0, 4).Average(pair => Math.Pow((ratios[pair] / lengths[pair]) - (ratios[pair + 4] / lengths[pair + 4]) - 5, 2));

        Assert.Equal(expected, LossOf(new DpoConfig { Loss = DpoLoss.Ipo }, model, adapter, GoldenPairs.Batch()), 1e-5 * expected);
    }

    [Theory]
    [InlineData("sgd")]
    [InlineData("adamw")]
    public void Three_steps_are_those_of_TRL(string kind)
    {
        using var scope = NewDisposeScope();
        using var golden = new GoldenPreferences();
        using var model = GoldenPreferences.Model();
        using var adapter = Adapter(model);
        using var parameters = new FlatParameters(adapter.Trainable);
        OptimizerConfig config = kind == "sgd" ? new SgdConfig { LearningRate = 0.1 } : new AdamWConfig { LearningRate = 1e-3, WeightDecay = 0.01 };
        using var optimizer = config.Create(parameters);
        var losses = new List<double>();
        for (var step = 0; step < 4; step++)
        {
            losses.Add(TrainingStep.Backward(model, adapter, new DpoConfig(), parameters, [GoldenPairs.Batch()], CPU).Loss);
            if (step < 3)
            {
                optimizer.Step(config.LearningRate);
            }
        }

        Assert.Equal(golden.Numbers($"dpo_sigmoid_losses_{kind}"), losses, new Near(2e-6));
        golden.AssertEqual($"{kind}3|", adapter, tensor => tensor.Parameter);
    }

    [Fact]
    public void Before_the_first_step_the_loss_is_ln_2_and_no_pair_is_right()
    {
        using var scope = NewDisposeScope();
        using var model = GoldenPreferences.Model();
        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 1);
        using var parameters = new FlatParameters(adapter.Trainable);

        var step = TrainingStep.Backward(model, adapter, new DpoConfig(), parameters, [GoldenPairs.Batch()], CPU);

        Assert.Equal(MathF.Log(2), (float)step.Loss);
        Assert.Equal(0, step.Accuracy);
        Assert.Equal([0.0, 0, 0], step.Figures.Take(3));
        Assert.True(step.GradNorm > 0);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void Loss_and_gradient_do_not_depend_on_batches(int batchSize)
    {
        using var scope = NewDisposeScope();
        using var model = GoldenPreferences.Model();
        using var adapter = Adapter(model);
        using var parameters = new FlatParameters(adapter.Trainable);
        var objective = new DpoConfig { Loss = DpoLoss.SigmoidNorm, SftWeight = 0.3, DynamicBetaWeight = 0.5 };
        var plan = new BatchPlan(GoldenPairs.Examples([0f, 0.5f, 1f, 2f]), batchSize, padId: 0, packTo: null, shuffleSeed: null);

        var whole = TrainingStep.Backward(model, adapter, objective, parameters, [GoldenPairs.Batch([0f, 0.5f, 1f, 2f])], CPU);
        var parts = TrainingStep.Backward(model, adapter, objective, parameters, [.. plan.ForEpoch(0).Select(plan.Collate)], CPU);

        Assert.Equal(whole.Loss, parts.Loss, 1e-6);
        Assert.Equal(whole.GradNorm, parts.GradNorm, 1e-5 * whole.GradNorm);
        Assert.Equal(whole.Figures, parts.Figures, new Near(1e-6));
    }

    /// <remarks>The mean over pairs of γ·(-log π(c)/|c|) comes on top; TRL gives the means per token.</remarks>
    [Fact]
    public void Fine_tuning_on_the_chosen_answer_is_added()
    {
        using var scope = NewDisposeScope();
        using var golden = new GoldenPreferences();
        using var model = GoldenPreferences.Model();
        using var adapter = Adapter(model);
        var expected = golden.Facts.GetProperty("dpo").GetProperty("sigmoid").GetProperty("mean").GetDouble()
            - (0.25 * golden.Numbers("policy_avg_logps").Take(4).Average());

        Assert.Equal(expected, LossOf(new DpoConfig { SftWeight = 0.25 }, model, adapter, GoldenPairs.Batch()), 2e-6);
    }

    [Fact]
    public void A_margin_makes_beta_greater()
    {
        using var scope = NewDisposeScope();
        using var model = GoldenPreferences.Model();
        using var adapter = Adapter(model);
        var batch = GoldenPairs.Batch([5f, 5f, 5f, 5f]);

        var dynamic = LossOf(new DpoConfig { DynamicBetaWeight = 0.5 }, model, adapter, batch);

        Assert.Equal(LossOf(new DpoConfig { Beta = 0.14589575 }, model, adapter, batch), dynamic, 1e-6);
        Assert.Equal(LossOf(new DpoConfig(), model, adapter, batch), LossOf(new DpoConfig { DynamicBetaWeight = 0.5 }, model, adapter, GoldenPairs.Batch()), 1e-7);
    }

    [Fact]
    public void Steps_leak_no_tensor()
    {
        using var model = GoldenPreferences.Model();
        using var adapter = Adapter(model);
        using var parameters = new FlatParameters(adapter.Trainable);
        void Step() => TrainingStep.Backward(
            model, adapter, new DpoConfig { SftWeight = 1, Loss = DpoLoss.Ipo, DynamicBetaWeight = 1 }, parameters, [GoldenPairs.Batch()], CPU);
        Step();
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (var count = 0; count < 5; count++)
        {
            Step();
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void Smoothing_that_the_loss_does_not_read_is_refused() => Assert.Equal(
        ["objective.label_smoothing"],
        SpecJson.Parse("""{ "model": "m", "data": { "train": "t" }, "objective": { "type": "dpo", "loss": "hinge", "label_smoothing": 0.1 } }""")
            .Errors.Select(error => error.Path));

    private static Adapter Adapter(Training.Models.CausalLm model) => new LoraConfig { From = GoldenPreferences.AdapterFolder }.Attach(model, seed: 0);

    private static double LossOf(ObjectiveConfig objective, Training.Models.CausalLm model, Adapter adapter, Batch batch)
    {
        using var noGrad = no_grad();
        return objective.Measure(model, adapter, batch, CPU).Sum.item<float>() / objective.Weight(batch);
    }

    private static double[] Doubles(Tensor numbers) => [.. numbers.data<float>().Select(number => (double)number)];
}
