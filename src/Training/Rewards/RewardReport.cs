namespace TrainingService.Training.Rewards;

/// <summary>What a reward model does on pairs of answers that it was not trained on. Written to the artifact as <c>evaluation/reward.json</c>.</summary>
public sealed record RewardReport
{
    /// <summary>Of this version of the file.</summary>
    public const string CurrentFormat = "training-service/reward-evaluation/1";

    public string Format { get; init; } = CurrentFormat;

    /// <summary>What a person should know, in sentences; the summary first, then the gravest.</summary>
    public required IReadOnlyList<RewardFinding> Findings { get; init; }

    /// <summary>Whether answers were scored after critiques that the rows hold, where in use the model writes its own.</summary>
    public bool CritiquesGiven { get; init; }

    /// <summary>Pairs in which the chosen answer scores higher. A tie is wrong.</summary>
    public required Share Accuracy { get; init; }

    /// <summary>Share of the pairs whose two answers score the same.</summary>
    public required double TieRate { get; init; }

    /// <summary>Prompts whose pairs are all right (ACC+).</summary>
    public required Share AllRightPrompts { get; init; }

    /// <summary>Rewards of the chosen answers less those of the rejected ones.</summary>
    public required Distribution Margins { get; init; }

    /// <summary>Rewards of all answers.</summary>
    public required Distribution Rewards { get; init; }

    public required RewardCalibration Calibration { get; init; }

    public required LengthBias Length { get; init; }

    /// <summary>By the rows' <c>category</c> or <c>subset</c>, the worst first; empty when rows have none.</summary>
    public required IReadOnlyList<CategoryFigures> Categories { get; init; }

    public required LabelAgreement Labels { get; init; }

    /// <summary>Weighted accuracy of sets of categories; null when nobody said which belong together.</summary>
    public SectionScores? Sections { get; init; }
}

/// <summary>How grave a finding is.</summary>
public enum FindingLevel
{
    /// <summary>Something to know.</summary>
    Info,

    /// <summary>The model can be used where this does not matter.</summary>
    Warning,

    /// <summary>The model should not be used before this is understood.</summary>
    Problem,
}

/// <summary>Something that stands out.</summary>
/// <param name="Code">Stable name, such as <c>prefers_longer</c>.</param>
/// <param name="Text">For someone new to reward models.</param>
/// <param name="Advice">What to do about it; null: nothing.</param>
public sealed record RewardFinding(string Code, FindingLevel Level, string Text, string? Advice = null);

/// <summary>A share with what it is a share of.</summary>
/// <param name="Value">From 0 to 1; 0 of nothing.</param>
/// <param name="StandardError">√(p (1 − p) / n): of repeating the measurement with as many other rows.</param>
public sealed record Share(int Count, int Of, double Value, double StandardError)
{
    public static Share From(int count, int of)
    {
        var value = of == 0 ? 0 : count / (double)of;
        return new(count, of, value, of == 0 ? 0 : Math.Sqrt(value * (1 - value) / of));
    }
}

/// <summary>How numbers are spread.</summary>
/// <param name="Deviation">Root of the mean squared distance from the mean.</param>
/// <param name="Percentiles">101 values: the i-th is the smallest that at least i % of the numbers do not exceed; the 0th is the least.</param>
/// <param name="Edges">Of the bins of a histogram, one more than there are bins; each holds its lower edge, the last both.</param>
/// <param name="Counts">Numbers in each bin.</param>
public sealed record Distribution(
    double Mean, double Deviation, IReadOnlyList<double> Percentiles, IReadOnlyList<double> Edges, IReadOnlyList<int> Counts);

/// <summary>Whether σ(margin) can be read as a probability.</summary>
/// <remarks>
/// A pair is a prediction that the answer with the higher reward is the chosen one, made with confidence σ(|margin|), so from 0.5 to 1.
/// Counting each pair in both orders, from 0 to 1, gives the same numbers. A tie predicts nothing and counts as half right.
/// </remarks>
/// <param name="Error">Expected calibration error: mean over the pairs of the distance of their bin's two means.</param>
/// <param name="MeanConfidence">What the model claims to be right in.</param>
/// <param name="MeanRight">What it is right in.</param>
public sealed record RewardCalibration(double Error, double MeanConfidence, double MeanRight, IReadOnlyList<ReliabilityBin> Bins);

/// <summary>Pairs of similar confidence; the means are 0 where there are none.</summary>
public sealed record ReliabilityBin(double From, double To, int Pairs, double MeanConfidence, double MeanRight);

/// <summary>What the length of an answer has to do with its reward.</summary>
/// <param name="ChosenLonger">Accuracy where the chosen answer has more tokens.</param>
/// <param name="ChosenShorter">Accuracy where it has fewer.</param>
/// <param name="SameLength">Accuracy where both have as many.</param>
/// <param name="Pearson">Correlation of reward and tokens over all answers; null when either is constant.</param>
/// <param name="Spearman">The same of their ranks.</param>
/// <param name="PairSpearman">Rank correlation of the differences within pairs, reward against tokens: what prompts have in common is gone.</param>
/// <param name="Buckets">Accuracy by tokens by which the chosen answer is longer, in buckets of similar size.</param>
public sealed record LengthBias(
    Share ChosenLonger, Share ChosenShorter, Share SameLength, double? Pearson, double? Spearman, double? PairSpearman,
    IReadOnlyList<LengthBucket> Buckets)
{
    /// <summary>Share of the pairs whose chosen answer is longer: what choosing the longer answer would be right in.</summary>
    public double LongerShare => (ChosenLonger.Of + ChosenShorter.Of + SameLength.Of) is > 0 and var pairs ? ChosenLonger.Of / (double)pairs : 0;

    /// <summary>Share of the pairs whose chosen answer is shorter.</summary>
    public double ShorterShare => (ChosenLonger.Of + ChosenShorter.Of + SameLength.Of) is > 0 and var pairs ? ChosenShorter.Of / (double)pairs : 0;
}

/// <param name="From">Fewest tokens by which a chosen answer is longer; below zero: shorter.</param>
/// <param name="To">Most of them.</param>
public sealed record LengthBucket(int From, int To, Share Accuracy);

/// <param name="MeanMargin">Of rewards.</param>
public sealed record CategoryFigures(string Name, Share Accuracy, double MeanMargin);

/// <summary>Where the model and the labels of the file agree.</summary>
/// <remarks>Data sets have one label a row, and people differ on 25 to 40 % of open questions: what can be seen is whether the model agrees with the
/// labels more where it is surer, and which rows it contradicts with most confidence.</remarks>
/// <param name="Buckets">By confidence σ(|margin|), from 0.5.</param>
/// <param name="Contradicted">The rows whose label the model contradicts with most confidence, from 0.9 on; at most 20.</param>
/// <param name="ContradictedCount">All of those.</param>
/// <param name="StatedMarginSpearman">Rank correlation of the model's margins with those in the file; null when the file has none.</param>
public sealed record LabelAgreement(
    IReadOnlyList<AgreementBucket> Buckets, IReadOnlyList<ContradictedRow> Contradicted, int ContradictedCount, double? StatedMarginSpearman);

/// <inheritdoc cref="LabelAgreement"/>
public sealed record AgreementBucket(double From, double To, Share Agreement);

/// <param name="Confidence">That the rejected answer is the better one.</param>
public sealed record ContradictedRow(int Row, double Confidence);
