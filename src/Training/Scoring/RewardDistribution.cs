using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Scoring;

/// <summary>The rewards that a model gave to the answers of its validation rows: what a reward of it is compared with, since rewards have no unit.</summary>
/// <param name="Count">Answers.</param>
/// <param name="Rewards">In rising order: all of them, or the quantiles 0, 1/1000, …, 1 where there are more.</param>
public sealed record RewardDistribution(int Count, IReadOnlyList<float> Rewards)
{
    /// <summary>Beside the weights.</summary>
    public const string FileName = "reward_distribution.json";

    private const int Most = 1001;
    private const long LargestBytes = 1 << 20;

    /// <param name="rewards">At least one.</param>
    public static RewardDistribution Of(IEnumerable<float> rewards)
    {
        var sorted = rewards.Order().ToArray();
        return new(
            sorted.Length,
            sorted.Length <= Most ? sorted : [.. Enumerable.Range(0, Most).Select(i => sorted[(int)Math.Round((double)i * (sorted.Length - 1) / (Most - 1))])]);
    }

    /// <summary>Rewards of every answer of rows that a model has not seen, without gradients. The caller switches dropout off.</summary>
    /// <param name="examples">One answer each, or a pair.</param>
    /// <param name="padId">Token that fills the end of short sequences.</param>
    /// <returns>In no particular order.</returns>
    public static IReadOnlyList<float> RewardsOf(
        CausalLm model, Adapter adapter, ObjectiveConfig objective, IReadOnlyList<Example> examples, int batchSize, int padId, Device device, CancellationToken ct)
    {
        using var noGrad = no_grad();
        var rewards = new List<float>(examples.Count);
        var plan = BatchPlan.ForEvaluation(ChosenExamples.LongestFirst(examples), batchSize, padId);
        foreach (var planned in plan.ForEpoch(0))
        {
            ct.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            var batch = plan.Collate(planned);
            using var seen = adapter.BeginBatch(batch);
            rewards.AddRange(objective.Read(BatchInput.Scores(model, batch, device)).Rewards.cpu().data<float>().ToArray());
        }

        return rewards;
    }

    /// <summary>Share of the validation answers, in percent, whose reward is lower; of equal ones, half.</summary>
    public double PercentileOf(float reward)
    {
        var (below, upTo) = (Rewards.Count(other => other < reward), Rewards.Count(other => other <= reward));
        return 50.0 * (below + upTo) / Rewards.Count;
    }

    public void Write(string folder) =>
        File.WriteAllText(Path.Combine(folder, FileName), JsonSerializer.Serialize(this, SpecJson.Options) + "\n");

    /// <summary>What a folder of weights tells; null: its run had no validation rows.</summary>
    /// <exception cref="TrainingException">The file is damaged.</exception>
    public static RewardDistribution? Read(string folder)
    {
        var path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
        {
            return null;
        }

        try
        {
            var read = PlainFile.LengthOf(path) <= LargestBytes ? JsonSerializer.Deserialize<RewardDistribution>(File.ReadAllText(path), SpecJson.Options) : null;
            return read is { Rewards.Count: > 0 } ? read : throw Damaged(null);
        }
        catch (JsonException error)
        {
            throw Damaged(error);
        }
    }

    private static TrainingException Damaged(Exception? inner) => TrainingException.InvalidData(
        $"{FileName} beside the weights is damaged; copy it from where they were saved, or remove it: rewards then have no percentile.", FileName, inner);
}
