using System.Collections;
using TrainingService.Training.Data;

namespace TrainingService.Training.Dmoe;

/// <summary>What a phase of a <see cref="DmoeRun"/> trains.</summary>
internal enum DmoeStage
{
    /// <summary>The classifier of prompts by category.</summary>
    Router,

    /// <summary>What the experts of a category start from: a reward model of its whole comparisons.</summary>
    Base,

    /// <summary>One capability of a category.</summary>
    Expert,

    /// <summary>The network that joins a category's experts.</summary>
    Aggregation,
}

/// <summary>One phase of a <see cref="DmoeRun"/>.</summary>
/// <param name="Category">Null: all of them.</param>
/// <param name="Capability">Null: whole comparisons.</param>
internal sealed record DmoePhase(DmoeStage Stage, string? Category = null, string? Capability = null)
{
    /// <summary>Where its result lies in the artifact, and its name in reports.</summary>
    public string Path => Stage switch
    {
        DmoeStage.Router => "router",
        DmoeStage.Base => $"base/{Category}",
        DmoeStage.Expert => $"experts/{Category}/{Capability}",
        DmoeStage.Aggregation => $"aggregation/{Category}",
    };

    /// <summary>Which rows it sees.</summary>
    /// <param name="baseShare">See <see cref="Objectives.DmoeRewardConfig.BaseShare"/>; rows that are measured are divided by nobody.</param>
    public IExamples RowsOf(IReadOnlyList<Example> rows, double baseShare, bool isTraining)
    {
        var chosen = new ChosenExamples(rows, [.. rows.Index().Where(row => Takes(row.Item, baseShare, isTraining)).Select(row => row.Index)]);
        return Stage == DmoeStage.Router ? new Prompts(chosen) : chosen;
    }

    private bool Takes(Example row, double baseShare, bool isTraining) =>
        row.Capability == Capability && (Category is null || row.Category == Category) && Stage switch
        {
            DmoeStage.Router or DmoeStage.Expert => true,
            DmoeStage.Base => !isTraining || IsInBase(row.Row, baseShare),
            DmoeStage.Aggregation => !isTraining || !IsInBase(row.Row, baseShare),
        };

    /// <summary>A function of the row's number, so that all pairs of a row fall to one side, and each category is divided in about the same way.</summary>
    private static bool IsInBase(int row, double share) => (SplitMix64.For(row, stream: 0).Next() >> 11) * (1.0 / (1UL << 53)) < share;

    /// <summary>What stands before the answers of pairs: the router knows no answer.</summary>
    private sealed class Prompts(ChosenExamples pairs) : IExamples
    {
        public int Count => pairs.Count;

        public Example this[int index]
        {
            get
            {
                var pair = pairs[index];
                int[] ids = [.. pair.InputIds.Take(LengthOf(pair))];
                return new(ids, ids, pair.Row) { Category = pair.Category };
            }
        }

        public int LengthOf(int index) => LengthOf(pairs[index]);

        public IEnumerator<Example> GetEnumerator() => Enumerable.Range(0, Count).Select(index => this[index]).GetEnumerator();

        IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

        private static int LengthOf(Example pair) => PromptTokens(pair.Labels);
    }

    /// <summary>Tokens before the first one that carries loss; one where there are none.</summary>
    public static int PromptTokens(int[] labels) => Math.Max(1, Array.FindIndex(labels, label => label != Example.Ignored));
}
