using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>What β by margin is worth, in small: log-ratios that are linear in sixteen features, and labels that are wrong where answers differ little.</summary>
/// <remarks>
/// Each pair's true lead s is a direction of the features; its label is wrong with probability σ(-2|s|), as people's are, in 17 to 34 % of the pairs here. The margin
/// column is the lead of the labelled order, negative where the label is wrong: what a reward model would say.
/// </remarks>
public class DynamicBetaTests(ITestOutputHelper output)
{
    private const int Pairs = 160;
    private const int Width = 16;
    private const double Beta = 0.5;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void It_finds_the_direction_of_preference_better_where_margins_vary(int seed)
    {
        using var scope = NewDisposeScope();
        var (differences, margins, direction) = Draw(seed);
        double Found(Tensor betas) => nn.functional.cosine_similarity(Fitted(differences, betas), direction, dim: 0).item<float>();

        var constant = new[] { 0.25, 0.5, 1, 2 }.Select(beta => Found(full([Pairs], beta))).ToArray();
        var paper = Found(PreferenceLosses.DynamicBeta(margins, Beta, weight: 0.5, rate: 0.5));
        var strong = Found(PreferenceLosses.DynamicBeta(margins, Beta, weight: 4, rate: 0.5));

        output.WriteLine($"wrong labels {margins.lt(0).to_type(ScalarType.Float32).mean().item<float>():P0}; cosine with the true direction: "
            + $"constant {string.Join(", ", constant.Select(found => found.ToString("F3")))}; by margin, w 0.5: {paper:F3}, w 4: {strong:F3}");
        Assert.True(paper > constant[1], $"{paper} {constant[1]}");
        Assert.True(strong > constant.Max() + 0.01, $"{strong} {constant.Max()}");
    }

    /// <summary>The direction that 120 steps of descent on DPO's loss find, [width].</summary>
    private static Tensor Fitted(Tensor differences, Tensor betas)
    {
        var direction = zeros(Width, requires_grad: true);
        for (var step = 0; step < 120; step++)
        {
            using var scope = NewDisposeScope();
            var leads = differences.mv(direction);
            PreferenceLosses.Dpo(DpoLoss.Sigmoid, leads, zeros_like(leads), betas).mean().backward();
            using var off = no_grad();
            direction.sub_(4 * direction.grad!);
            direction.grad!.zero_();
        }

        return direction.detach();
    }

    /// <returns>Features of the chosen answer less those of the rejected one, [pairs, width]; margins, [pairs]; the true direction, [width].</returns>
    private static (Tensor Differences, Tensor Margins, Tensor Direction) Draw(int seed)
    {
        using var generator = new Generator((ulong)seed, CPU);
        var direction = randn(Width, generator: generator);
        direction = direction / direction.norm();
        var features = randn([Pairs, Width], generator: generator);
        var leads = 0.7 * features.mv(direction);
        var isWrong = rand(Pairs, generator: generator).lt(sigmoid(-2 * leads.abs()));
        var sign = leads.sign() * (1 - (2 * isWrong.to_type(ScalarType.Float32)));
        return (features * sign.unsqueeze(1), leads * sign, direction);
    }
}
