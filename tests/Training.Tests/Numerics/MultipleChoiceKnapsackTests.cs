using TrainingService.Training.Numerics;

namespace TrainingService.Training.Tests.Numerics;

public class MultipleChoiceKnapsackTests
{
    [Fact]
    public void A_case_by_hand()
    {
        // Budget 6. The best saving per size is class 0's second choice (6 for 2), after which nothing but class 1's first fits: 4 + 9 = 13.
        // Both second choices of class 1 and the first of class 0 cost 10 + 2 = 12 at size 6, which a greedy choice misses.
        long[][] sizes = [[1, 3], [2, 5]];
        double[][] costs = [[10, 4], [9, 2]];

        Assert.Equal([0, 1], MultipleChoiceKnapsack.Solve(sizes, costs, 6)!);
        Assert.Equal([1, 0], MultipleChoiceKnapsack.Solve(sizes, costs, 5)!);
        Assert.Equal([1, 1], MultipleChoiceKnapsack.Solve(sizes, costs, 8)!);
        Assert.Null(MultipleChoiceKnapsack.Solve(sizes, costs, 2));
    }

    [Fact]
    public void Nothing_within_the_budget_is_better()
    {
        // All 4^6 choices, for budgets from the smallest to more than enough.
        var sizes = Enumerable.Range(0, 6).Select(item => Enumerable.Range(0, 4).Select(choice => 5L + (37 * item * (choice + 1) % 23) + (9 * choice)).ToArray()).ToList();
        var costs = sizes.ConvertAll(choices => choices.Select((size, choice) => 100.0 / size + Math.Sin(size + choice)).ToArray());
        for (var budget = sizes.Sum(choices => choices.Min()); budget < sizes.Sum(choices => choices.Max()) + 10; budget += 7)
        {
            var chosen = MultipleChoiceKnapsack.Solve(sizes, costs, budget)!;

            Assert.True(Total(sizes, chosen) <= budget);
            Assert.Equal(BruteForce(sizes, costs, budget), Cost(costs, chosen), 1e-12);
        }
    }

    [Fact]
    public void A_model_of_many_layers_is_solved()
    {
        // 224 matrices and 24 forms: the answer keeps to the budget and comes within one step of the linear program's bound.
        var sizes = Enumerable.Range(0, 224).Select(item => Enumerable.Range(0, 24).Select(choice => (4096L + (1024 * (item % 7))) * (17 + (5 * choice))).ToArray()).ToList();
        var costs = Enumerable.Range(0, 224).Select(item => Enumerable.Range(0, 24).Select(choice => (2 + Math.Sin(item)) * Math.Exp(-0.3 * choice)).ToArray()).ToList();
        var budget = sizes.Sum(choices => choices[8]);

        var chosen = MultipleChoiceKnapsack.Solve(sizes, costs, budget)!;

        Assert.InRange(Total(sizes, chosen), budget - sizes.Max(choices => choices[1] - choices[0]), budget);
        Assert.True(Cost(costs, chosen) < costs.Sum(choices => choices[8]));
    }

    private static long Total(IEnumerable<long[]> sizes, int[] chosen) => sizes.Zip(chosen, (choices, index) => choices[index]).Sum();

    private static double Cost(IEnumerable<double[]> costs, int[] chosen) => costs.Zip(chosen, (choices, index) => choices[index]).Sum();

    private static double BruteForce(List<long[]> sizes, List<double[]> costs, long budget)
    {
        var best = double.PositiveInfinity;
        for (var code = 0; code < 1 << (2 * sizes.Count); code++)
        {
            var chosen = Enumerable.Range(0, sizes.Count).Select(item => (code >> (2 * item)) & 3).ToArray();
            if (Total(sizes, chosen) <= budget)
            {
                best = Math.Min(best, Cost(costs, chosen));
            }
        }

        return best;
    }
}
