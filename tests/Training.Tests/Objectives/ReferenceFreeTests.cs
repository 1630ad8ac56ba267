using TrainingService.Training.Adapters;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>ORPO and SimPO on the golden pairs: losses by hand from the means per token that TRL gives.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class ReferenceFreeTests
{
    public ReferenceFreeTests() => set_num_threads(1);

    [Fact]
    public void Orpo_is_fine_tuning_and_the_odds_ratio()
    {
        using var golden = new GoldenPreferences();
        var mean = golden.Numbers("policy_avg_logps");
        var expected = Enumerable.Range(0, 4).Average(pair =>
            -mean[pair] + (0.2 * Math.Log(1 + (Odds(mean[pair + 4]) / Odds(mean[pair])))));

        var (step, _) = Measured(new OrpoConfig { Beta = 0.2 });

        Assert.Equal(expected, step.Loss, 1e-6 * expected);
        Assert.Equal(Enumerable.Range(0, 4).Count(pair => mean[pair] > mean[pair + 4]) / 4.0, step.Accuracy);
        Assert.Equal(
            [0.2 * mean.Take(4).Average(), 0.2 * mean.Skip(4).Average(), 0.2 * (mean.Take(4).Average() - mean.Skip(4).Average()), mean.Take(4).Average(), mean.Skip(4).Average()],
            step.Figures, new Near(1e-6));

        static double Odds(double mean) => Math.Exp(mean) / (1 - Math.Exp(mean));
    }

    [Theory]
    [InlineData(0.0)]
    [InlineData(0.5)]
    public void Simpo_asks_for_a_margin_per_token(double sftWeight)
    {
        using var golden = new GoldenPreferences();
        var mean = golden.Numbers("policy_avg_logps");
        var expected = Enumerable.Range(0, 4).Average(pair =>
            Math.Log(1 + Math.Exp(-((2.5 * (mean[pair] - mean[pair + 4])) - 0.75))) - (sftWeight * mean[pair]));

        var (step, _) = Measured(new SimpoConfig { Beta = 2.5, Gamma = 0.75, SftWeight = sftWeight });

        Assert.Equal(expected, step.Loss, 1e-6 * Math.Max(1, expected));
        Assert.Equal(Enumerable.Range(0, 4).Count(pair => mean[pair] > mean[pair + 4]) / 4.0, step.Accuracy);
    }

    [Theory]
    [InlineData("orpo")]
    [InlineData("simpo")]
    public void A_step_against_the_gradient_lowers_the_loss_and_raises_the_margin(string name)
    {
        ObjectiveConfig objective = name == "orpo" ? new OrpoConfig { Beta = 1 } : new SimpoConfig();

        var (before, after) = Measured(objective);

        Assert.True(after.Loss < before.Loss, $"{before.Loss} {after.Loss}");
        Assert.True(after.Figures[2] > before.Figures[2], $"{before.Figures[2]} {after.Figures[2]}");
    }

    /// <summary>Before and after a step of plain gradient descent.</summary>
    private static (StepResult Before, StepResult After) Measured(ObjectiveConfig objective)
    {
        using var scope = NewDisposeScope();
        using var model = GoldenPreferences.Model();
        using var adapter = new LoraConfig { From = GoldenPreferences.AdapterFolder }.Attach(model, seed: 0);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = new SgdConfig().Create(parameters);
        StepResult Step() => TrainingStep.Backward(model, adapter, objective, parameters, [GoldenPairs.Batch()], CPU);
        var before = Step();
        optimizer.Step(0.05);
        return (before, Step());
    }
}
