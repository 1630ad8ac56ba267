using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Rewards;

/// <summary>Scores pairs of answers with a model and writes what follows: <c>reward.json</c>, <c>reward.md</c> and drawings.</summary>
public static class RewardWriter
{
    /// <summary>The report as JSON, in the folder <c>evaluation</c> of a run.</summary>
    public const string FileName = "reward.json";

    /// <summary>The report as a page for people.</summary>
    public const string PageName = "reward.md";

    /// <summary>Scores every pair once, without gradients. The caller switches dropout off.</summary>
    /// <param name="adapter">What the model was trained with; null: it is used as it is.</param>
    /// <param name="objective">Says how the outputs of the score head are read.</param>
    /// <param name="examples">Two sequences each, the chosen one first.</param>
    /// <param name="padId">Token that fills the end of short sequences.</param>
    /// <returns>In the order of the rows, without those that are marked as ties: of them neither answer is better.</returns>
    public static IReadOnlyList<ScoredPair> Score(
        CausalLm model, Adapter? adapter, ObjectiveConfig objective, IReadOnlyList<Example> examples, int batchSize, int padId, Device device,
        CancellationToken ct)
    {
        using var noGrad = no_grad();
        var pairs = new List<ScoredPair>(examples.Count);

        // Neighbours of equal length waste no padding.
        var plan = BatchPlan.ForEvaluation(ChosenExamples.LongestFirst(examples), batchSize, padId);
        foreach (var planned in plan.ForEpoch(0))
        {
            ct.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            var batch = plan.Collate(planned);
            using var seen = adapter?.BeginBatch(batch);
            var rewards = objective.Read(BatchInput.Scores(model, batch, device)).Rewards.cpu().data<float>().ToArray();   // chosen, then rejected
            pairs.AddRange(batch.Examples.Index().Where(example => !example.Item.IsTie)
                .Select(example => PairOf(example.Item, objective.Use, rewards[example.Index], rewards[batch.Examples.Count + example.Index])));
        }

        return [.. pairs.Index().OrderBy(pair => pair.Item.Row).ThenBy(pair => pair.Item.Prompt).ThenBy(pair => pair.Index).Select(pair => pair.Item)];
    }

    /// <summary>Writes the report on scored pairs into a folder, which is created when it does not exist.</summary>
    /// <param name="critiquesGiven">See <see cref="RewardReport.CritiquesGiven"/>.</param>
    public static RewardReport Write(IReadOnlyList<ScoredPair> pairs, string folder, RewardSections? sections = null, bool critiquesGiven = false)
    {
        var report = RewardEvaluation.Of(pairs, sections, critiquesGiven);
        Directory.CreateDirectory(folder);
        var drawings = RewardDrawings.Draw(report).ToList();
        foreach (var (name, svg) in drawings)
        {
            File.WriteAllText(Path.Combine(folder, name), svg);
        }

        File.WriteAllText(Path.Combine(folder, PageName), RewardPage.Write(report, [.. drawings.Select(drawing => drawing.Name)]));
        File.WriteAllBytes(Path.Combine(folder, FileName), JsonSerializer.SerializeToUtf8Bytes(report, SpecJson.Options));
        return report;
    }

    internal static ScoredPair PairOf(Example example, RowUse use, double chosen, double rejected)
    {
        var end = example.Ends is [var first, _] ? first : throw new ArgumentException("The example is no pair of answers.", nameof(example));
        ReadOnlySpan<int> ids = example.InputIds, labels = example.Labels;
        var (better, worse) = (Unlabelled(labels[..end]), Unlabelled(labels[end..]));

        // Labels mark the answers, or else the critiques; then the answers stand between what both sequences begin with and these.
        var critiqued = use == RowUse.Critiques;
        var prompt = critiqued ? Math.Min(ids[..end].CommonPrefixLength(ids[end..]), Math.Min(better, worse)) : better;
        return new(
            chosen, rejected, critiqued ? better - prompt : Labelled(labels[..end]), critiqued ? worse - prompt : Labelled(labels[end..]))
        {
            Row = example.Row,
            Prompt = Hash(ids[..prompt]),
            Category = example.Category,
            StatedMargin = example.Value,
        };
    }

    private static int Labelled(ReadOnlySpan<int> labels) => labels.Length - labels.Count(Example.Ignored);

    /// <summary>Tokens before the first with a label.</summary>
    private static int Unlabelled(ReadOnlySpan<int> labels) => labels.IndexOfAnyExcept(Example.Ignored) is >= 0 and var at ? at : labels.Length;

    /// <summary>FNV-1a.</summary>
    private static ulong Hash(ReadOnlySpan<int> ids)
    {
        var hash = 14_695_981_039_346_656_037UL;
        foreach (var id in ids)
        {
            hash = (hash ^ (uint)id) * 1_099_511_628_211UL;
        }

        return hash;
    }
}
