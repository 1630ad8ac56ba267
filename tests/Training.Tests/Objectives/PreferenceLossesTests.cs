using TorchSharp;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Losses of numbers: derived by hand, and TRL's with their derivatives.</summary>
public class PreferenceLossesTests
{
    /// <remarks>
    /// β = 0.1, Δ_c = 2, Δ_r = -1, so β·δ = 0.3. softplus(-0.3) = 0.554355 and softplus(0.3) = 0.854355.
    /// Conservative: 0.9·0.554355 + 0.1·0.854355 = 0.584355. Robust: (0.9·0.554355 - 0.1·0.854355)/0.8 = 0.516855.
    /// IPO with 4 and 5 tokens: (2/4 + 1/5 - 5)² = 18.49. Per token: softplus(-0.1·0.7) = 0.658760. SPPO: (2 - 5)² + (-1 + 5)² = 25.
    /// APO zero: 1 - σ(0.2) + σ(-0.1) = 1 - 0.549834 + 0.475021; down: σ(0.2) + 1 - σ(0.3) = 0.549834 + 1 - 0.574443.
    /// </remarks>
    [Theory]
    [InlineData(DpoLoss.Sigmoid, 0.0, 0.554355)]
    [InlineData(DpoLoss.Sigmoid, 0.1, 0.584355)]
    [InlineData(DpoLoss.Hinge, 0.0, 0.7)]
    [InlineData(DpoLoss.Robust, 0.1, 0.516855)]
    [InlineData(DpoLoss.Ipo, 0.0, 18.49)]
    [InlineData(DpoLoss.SigmoidNorm, 0.0, 0.658760)]
    [InlineData(DpoLoss.SppoHard, 0.0, 25)]
    [InlineData(DpoLoss.ApoZero, 0.0, 0.925187)]
    [InlineData(DpoLoss.ApoDown, 0.0, 0.975391)]
    public void The_loss_of_a_pair(DpoLoss loss, double labelSmoothing, double expected)
    {
        using var scope = NewDisposeScope();

        var actual = PreferenceLosses.Dpo(loss, One(2), One(-1), One(0.1f), labelSmoothing, One(4), One(5));

        Assert.Equal(expected, actual.item<float>(), 2e-6 * Math.Max(1, expected));
    }

    [Theory]
    [InlineData("sigmoid", DpoLoss.Sigmoid, 0.0)]
    [InlineData("hinge", DpoLoss.Hinge, 0.0)]
    [InlineData("ipo", DpoLoss.Ipo, 0.0)]   // TRL's function, which is given log-ratios that are divided already, or here not
    [InlineData("sigmoid_smooth0.1", DpoLoss.Sigmoid, 0.1)]
    [InlineData("robust0.1", DpoLoss.Robust, 0.1)]
    [InlineData("apo_zero", DpoLoss.ApoZero, 0.0)]
    public void Losses_rewards_and_derivatives_are_those_of_TRL(string variant, DpoLoss loss, double labelSmoothing)
    {
        using var scope = NewDisposeScope();
        using var golden = new GoldenPreferences();
        var expected = golden.Facts.GetProperty("dpo").GetProperty(variant);
        var beta = expected.GetProperty("beta").GetDouble();
        var policy = GoldenPreferences.Floats(golden.Numbers("policy_logps")).requires_grad_(true);
        var ratios = policy - GoldenPreferences.Floats(golden.Numbers("reference_logps"));

        var losses = PreferenceLosses.Dpo(loss, ratios.narrow(0, 0, 4), ratios.narrow(0, 4, 4), tensor((float)beta), labelSmoothing);
        losses.mean().backward();

        Assert.Equal(Of(expected, "losses"), Doubles(losses), new Near(1e-5));
        Assert.Equal(Of(expected, "chosen_rewards").Concat(Of(expected, "rejected_rewards")), Doubles(beta * ratios), new Near(1e-6));
        Assert.Equal(Of(expected, "dmean_dchosen_logp").Concat(Of(expected, "dmean_drejected_logp")), Doubles(policy.grad!), new Near(1e-6));
    }

    [Fact]
    public void Losses_and_derivatives_of_verdicts_are_those_of_TRL()
    {
        using var scope = NewDisposeScope();
        using var golden = new GoldenPreferences();
        var expected = golden.Facts.GetProperty("other").GetProperty("kto");
        var policy = GoldenPreferences.Floats(golden.Numbers("policy_logps")).requires_grad_(true);
        var ratios = policy - GoldenPreferences.Floats(golden.Numbers("reference_logps"));

        var kl = PreferenceLosses.ReferencePoint(
            GoldenPreferences.Floats(Of(expected, "policy_KL_logps")), GoldenPreferences.Floats(Of(expected, "reference_KL_logps")));
        var losses = PreferenceLosses.Kto(
            ratios, arange(8).lt(4), kl, expected.GetProperty("beta").GetDouble(), expected.GetProperty("desirable_weight").GetDouble(),
            expected.GetProperty("undesirable_weight").GetDouble());
        losses.mean().backward();

        Assert.Equal(expected.GetProperty("kl").GetDouble(), kl.item<float>(), 1e-6);
        Assert.Equal(Of(expected, "losses"), Doubles(losses), new Near(1e-6));
        Assert.Equal(Of(expected, "dmean_dchosen_logp").Concat(Of(expected, "dmean_drejected_logp")), Doubles(policy.grad!), new Near(1e-7));
    }

    [Fact]
    public void The_reference_point_is_never_below_zero_and_has_no_gradient()
    {
        using var scope = NewDisposeScope();
        var policy = tensor(new[] { -3f, -5f }).requires_grad_(true);

        Assert.Equal(0, PreferenceLosses.ReferencePoint(policy, tensor(new[] { -1f, -2f })).item<float>());
        Assert.Equal(1.5f, PreferenceLosses.ReferencePoint(policy, tensor(new[] { -4f, -7f })).item<float>());
        Assert.False(PreferenceLosses.ReferencePoint(policy, tensor(new[] { -4f, -7f })).requires_grad);
        Assert.Equal(0, PreferenceLosses.ReferencePoint(zeros(0), zeros(0)).item<float>());
    }

    /// <remarks>MM-RLHF's formula with w = k = 0.5: e^-0.25 = 0.778801, e^-0.5 = 0.606531, e^-1 = 0.367879, e^-2.5 = 0.082085.</remarks>
    [Fact]
    public void Beta_grows_with_the_margin_within_its_bounds()
    {
        using var scope = NewDisposeScope();

        var beta = PreferenceLosses.DynamicBeta(tensor(new[] { 0f, 0.5f, 1, 2, 5, -3, 1000 }), beta: 0.1, weight: 0.5, rate: 0.5);
        var off = PreferenceLosses.DynamicBeta(tensor(new[] { 0f, 5 }), beta: 0.1, weight: 0, rate: 0.5);

        Assert.Equal([0.1, 0.11106, 0.11967, 0.13161, 0.14590, 0.1, 0.15], Doubles(beta), new Near(5e-6));
        Assert.Equal([0.1, 0.1], Doubles(off), new Near(1e-8));
    }

    /// <remarks>
    /// P_c = 0.5 has odds 1, P_r = 0.25 odds 1/3: softplus(-ln 3) = ln(1 + 1/3) = 0.287682. P_c = P_r: ln 2.
    /// </remarks>
    [Theory]
    [InlineData(0.5, 0.25, 0.287682)]
    [InlineData(0.25, 0.5, 1.386294)]
    [InlineData(0.7, 0.7, 0.693147)]
    public void The_odds_ratio_of_a_pair(double chosen, double rejected, double expected)
    {
        using var scope = NewDisposeScope();

        Assert.Equal(expected, PreferenceLosses.OddsRatio(One((float)Math.Log(chosen)), One((float)Math.Log(rejected))).item<float>(), 2e-6);
    }

    [Fact]
    public void The_odds_of_an_answer_that_is_certain_and_of_one_that_is_all_but_impossible_have_gradients()
    {
        using var scope = NewDisposeScope();
        var chosen = tensor(new[] { 0f, -60f }).requires_grad_(true);

        PreferenceLosses.OddsRatio(chosen, tensor(new[] { -60f, 0f })).sum().backward();

        Assert.All(Doubles(chosen.grad!), gradient => Assert.True(double.IsFinite(gradient)));
    }

    /// <remarks>β = 2, γ = 1: 2·(-1 + 1.5) - 1 = 0 gives ln 2; 2·(-1 + 2) - 1 = 1 gives softplus(-1) = 0.313262.</remarks>
    [Theory]
    [InlineData(-1f, -1.5f, 0.693147)]
    [InlineData(-1f, -2f, 0.313262)]
    public void The_margin_of_simpo(float chosen, float rejected, double expected)
    {
        using var scope = NewDisposeScope();

        Assert.Equal(expected, PreferenceLosses.Simpo(One(chosen), One(rejected), beta: 2, gamma: 1).item<float>(), 1e-6);
    }

    private static Tensor One(float number) => tensor(new[] { number });

    private static double[] Of(System.Text.Json.JsonElement facts, string name) => GoldenPreferences.Numbers(facts.GetProperty(name));

    private static double[] Doubles(Tensor numbers) => [.. numbers.detach().data<float>().Select(number => (double)number)];
}
