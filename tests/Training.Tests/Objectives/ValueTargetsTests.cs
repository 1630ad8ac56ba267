using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Targets of the value heads against numbers worked from the paper's formulas with erf of other software, and by hand.</summary>
public class ValueTargetsTests
{
    // [-2, 2] in 8 bins: width 0.5, deviation 0.75·0.5 = 0.375.
    [Theory]
    [InlineData(0.3f, new[] { 0.000001, 0.000263, 0.016185, 0.195407, 0.491245, 0.265928, 0.030287, 0.000684 }, 0.299993)]
    [InlineData(-1.9f, new[] { 0.763589, 0.222865, 0.013390, 0.000156, 0, 0, 0, 0 }, -1.624943)]
    public void HL_Gauss_has_the_masses_of_a_cut_normal_distribution(float value, double[] masses, double mean)
    {
        using var scope = NewDisposeScope();
        var target = ValueTargets.HlGauss(tensor(new[] { value }), 8, -2, 2, 0.75);

        Assert.Equal(masses, Numbers(target), new Near(1e-6));
        Assert.Equal(mean, target.matmul(ValueTargets.Centres(8, -2, 2)).item<float>(), 2e-6);
    }

    [Fact]
    public void HL_Gauss_of_a_value_outside_is_that_of_the_end()
    {
        using var scope = NewDisposeScope();

        Assert.Equal(
            Numbers(ValueTargets.HlGauss(tensor(new[] { -2f, 2f }), 8, -2, 2, 0.75)),
            Numbers(ValueTargets.HlGauss(tensor(new[] { -1e6f, 57f }), 8, -2, 2, 0.75)));
    }

    [Fact]
    public void Narrow_bins_far_from_the_value_have_no_mass_and_harm_nothing()
    {
        using var scope = NewDisposeScope();
        var target = ValueTargets.HlGauss(tensor(new[] { -10f, 0f, 9.99f }), 1001, -10, 10, 0.05);
        var loss = ValueTargets.CrossEntropy(zeros(3, 1001), target);

        Assert.All(Numbers(target), mass => Assert.InRange(mass, 0, 1));
        Assert.All(Numbers(target.sum(dim: 1)), sum => Assert.Equal(1, sum, 1e-5));
        Assert.All(Numbers(loss), nats => Assert.Equal(Math.Log(1001), nats, 1e-4));   // of even predictions, whatever the target
    }

    [Fact]
    public void Two_hot_divides_a_value_between_its_neighbours()
    {
        using var scope = NewDisposeScope();
        var target = ValueTargets.TwoHot(tensor(new[] { 0.3f, -2f, 2f, 1f, 7f }), 5, -2, 2);

        Assert.Equal(
            [0, 0, 0.7, 0.3, 0, /**/ 1, 0, 0, 0, 0, /**/ 0, 0, 0, 0, 1, /**/ 0, 0, 0, 1, 0, /**/ 0, 0, 0, 0, 1],
            Numbers(target), new Near(1e-6));
    }

    [Fact]
    public void The_mean_of_a_two_hot_target_is_the_value()
    {
        using var scope = NewDisposeScope();
        var values = linspace(-10, 10, 173);

        var means = ValueTargets.TwoHot(values, 51, -10, 10).matmul(ValueTargets.Atoms(51, -10, 10));

        Assert.Equal(Numbers(values), Numbers(means), new Near(2e-6));
    }

    // Atoms -2 … 2, a reward of 0.5 and no discount: each next atom lies half-way between two, the last one is cut to 2.
    //   (-1.5: .1) → .05 .05   (-0.5: .2) → .1 .1   (0.5: .3) → .15 .15   (1.5: .2) → .1 .1   (2: .2) → .2
    // A reward of 1: all places are atoms, which keep their mass; the last two are both 2.
    [Theory]
    [InlineData(0.5f, 1f, new[] { 0.05, 0.15, 0.25, 0.25, 0.3 })]
    [InlineData(1f, 1f, new[] { 0, 0.1, 0.2, 0.3, 0.4 })]
    [InlineData(0.25f, 0f, new[] { 0, 0, 0.75, 0.25, 0 })]
    [InlineData(-9f, 1f, new[] { 1.0, 0, 0, 0, 0 })]
    public void C51_projects_the_next_states_distribution(float reward, float discount, double[] expected)
    {
        using var scope = NewDisposeScope();
        var places = reward + (discount * ValueTargets.Atoms(5, -2, 2));
        var next = tensor(new[] { 0.1f, 0.2f, 0.3f, 0.2f, 0.2f });

        var projected = ValueTargets.Project(places.unsqueeze(0), next.unsqueeze(0), 5, -2, 2);

        Assert.Equal(expected, Numbers(projected), new Near(1e-6));
    }

    [Fact]
    public void C51_of_a_certain_value_is_two_hot()
    {
        using var scope = NewDisposeScope();
        var values = linspace(-11, 11, 89);

        Assert.Equal(
            Numbers(ValueTargets.TwoHot(values, 51, -10, 10)),
            Numbers(ValueTargets.Project(values.unsqueeze(1), ones(89, 1), 51, -10, 10)), new Near(1e-6));
    }

    [Fact]
    public void Cross_entropy_and_expectation_by_hand()
    {
        using var scope = NewDisposeScope();
        var logits = tensor(new[] { 0f, MathF.Log(3) }).unsqueeze(0);   // ¼ and ¾

        Assert.Equal(-(0.4 * Math.Log(0.25)) - (0.6 * Math.Log(0.75)), ValueTargets.CrossEntropy(logits, tensor(new[] { 0.4f, 0.6f }).unsqueeze(0)).item<float>(), 1e-6);
        Assert.Equal(0.75 * 8, ValueTargets.Expectation(logits, tensor(new[] { 0f, 8f })).item<float>(), 1e-5);
    }

    private static double[] Numbers(Tensor tensor) => tensor.contiguous().data<float>().Select(number => (double)number).ToArray();

    private sealed class Near(double tolerance) : IEqualityComparer<double>
    {
        public bool Equals(double x, double y) => Math.Abs(x - y) <= tolerance * Math.Max(1, Math.Abs(x));

        public int GetHashCode(double number) => 0;
    }
}
