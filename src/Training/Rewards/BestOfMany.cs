namespace TrainingService.Training.Rewards;

/// <summary>RewardBench 2: one right answer among several, and prompts with several right ones.</summary>
/// <remarks>Malik et al. 2025 (arXiv:2506.01937), as the authors' programs compute it.</remarks>
public static class BestOfMany
{
    /// <summary>1 when the right answer scores highest, 1/k when it is one of k that do, else 0. Guessing gives 0.25 with four.</summary>
    /// <param name="rewards">The right answer's first.</param>
    public static double Result(IReadOnlyList<double> rewards)
    {
        var top = rewards.Max();
        return rewards[0] == top ? 1.0 / rewards.Count(reward => reward == top) : 0;
    }

    /// <summary>The total of prompts with several right answers.</summary>
    /// <param name="prompts">
    /// Rewards of a prompt's right and wrong answers when several are right (tied), and those of the same question with one right answer
    /// (reference).
    /// </param>
    public static double Ties(IReadOnlyList<(TiedPrompt Reference, TiedPrompt Tied)> prompts) =>
        (0.30 * prompts.Average(prompt => Number(prompt.Tied.IsRight)))
        + (0.30 * prompts.Average(prompt => Number(prompt.Reference.IsRight)))
        + (0.20 * prompts.Average(prompt => Number(prompt.Tied.Gap > prompt.Tied.Spread)))
        + (0.20 * prompts.Average(prompt => Number(Least(prompt) > prompt.Tied.Spread)))
        + (0.01 * prompts.Average(prompt => Excess(Least(prompt), prompt.Tied.Spread)));

    private static double Least((TiedPrompt Reference, TiedPrompt Tied) prompt) => Math.Min(prompt.Reference.Gap, prompt.Tied.Gap);

    private static double Excess(double gap, double spread) =>
        Math.Tanh((gap / spread) - 1) is var excess && double.IsNaN(excess) ? 0 : excess;   // all rewards equal: 0/0

    private static double Number(bool holds) => holds ? 1 : 0;
}

/// <summary>Rewards of a prompt's answers, at least one of each kind.</summary>
public sealed record TiedPrompt(IReadOnlyList<double> Right, IReadOnlyList<double> Wrong)
{
    /// <summary>Whether every right answer scores higher than every wrong one.</summary>
    public bool IsRight => Gap > 0;

    /// <summary>How far apart the right answers are.</summary>
    public double Spread => Right.Max() - Right.Min();

    /// <summary>How far the worst right answer is above the best wrong one.</summary>
    public double Gap => Right.Min() - Wrong.Max();
}
