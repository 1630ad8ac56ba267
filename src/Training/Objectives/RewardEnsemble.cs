using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>What a score head says of answers.</summary>
/// <param name="Rewards">[B], float32.</param>
/// <param name="Disagreement">[B], standard deviation of the rewards of an ensemble's members; null: there is one.</param>
public readonly record struct ScoredAnswers(Tensor Rewards, Tensor? Disagreement = null);

/// <summary>Score heads side by side, each a reward model of its own on a body that they share.</summary>
/// <remarks>
/// Ensembles against over-optimisation: Coste et al. 2023, arXiv:2310.02743; heads on one body: Zhang et al. 2024, arXiv:2401.16635. Draws: the bootstrap of
/// Oza and Russell 2001, in which each member sees an item as often as a Poisson number of mean 1 says.
/// </remarks>
public static class RewardEnsemble
{
    private static readonly double[] Poisson = CumulatedPoisson();

    /// <summary>Reward: the mean of the members. Disagreement: their standard deviation (of all there are, so divided by their number).</summary>
    /// <remarks>Differences of rewards are all that pairs tell: members agree on a single answer only as far as centring keeps their means together.</remarks>
    /// <param name="outputs">[B, members].</param>
    /// <returns>Tensors in the caller's dispose scope.</returns>
    public static ScoredAnswers Read(Tensor outputs)
    {
        using var scope = NewDisposeScope();
        if (outputs.shape[^1] == 1)
        {
            return new(outputs.squeeze(-1).MoveToOuterDisposeScope());
        }

        return new(
            outputs.mean([-1]).MoveToOuterDisposeScope(),
            outputs.std(-1, unbiased: false).MoveToOuterDisposeScope());
    }

    /// <summary>How often each member sees each item: a function of the item's row and the member alone, so the same in every epoch.</summary>
    /// <returns>[items, members], float32, in the caller's dispose scope.</returns>
    internal static Tensor Draws(IReadOnlyList<Example> examples, int members, Device device)
    {
        var draws = new float[examples.Count * members];
        foreach (var (index, example) in examples.Index())
        {
            for (var member = 0; member < members; member++)
            {
                draws[(index * members) + member] = Draw(example.Row, member);
            }
        }

        using var scope = NewDisposeScope();
        return DeviceCopy.To(tensor(draws, [examples.Count, members]), device).MoveToOuterDisposeScope();
    }

    /// <summary>A Poisson number of mean 1, by inversion.</summary>
    internal static int Draw(int row, int member)
    {
        var uniform = (SplitMix64.For(row, member).Next() >> 11) * (1.0 / (1UL << 53));
        var at = Array.FindIndex(Poisson, below => uniform < below);
        return at < 0 ? Poisson.Length : at;
    }

    private static double[] CumulatedPoisson()
    {
        var (sum, term) = (0.0, Math.Exp(-1));
        var cumulated = new double[12];   // beyond, 1 is all that float64 shows
        for (var k = 0; k < cumulated.Length; k++)
        {
            sum += term;
            cumulated[k] = sum;
            term /= k + 1;
        }

        return cumulated;
    }
}
