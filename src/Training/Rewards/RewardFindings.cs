namespace TrainingService.Training.Rewards;

/// <summary>What is wrong with a reward model, in sentences for someone who has never seen one.</summary>
/// <remarks>
/// A finding needs two things: that it is no accident of the rows that were held out (so many standard errors), and that it is large enough to
/// matter. Both thresholds stand below with their reasons.
/// </remarks>
internal static class RewardFindings
{
    /// <summary>Below so many pairs the accuracy is uncertain by more than ten points in either direction (two standard errors at 50 %).</summary>
    private const int FewPairs = 100;

    /// <summary>Fewer pairs than this say nothing of a kind of pair: one more or less would move its accuracy by ten points.</summary>
    private const int FewOfAKind = 10;

    /// <summary>Differences that chance alone makes once in some 370 comparisons.</summary>
    private const double Significant = 3;

    /// <summary>Accuracies that differ by this much are told; a model that only counts tokens has a gap of 100 points.</summary>
    private const double NoticeableGap = 0.15;

    private const double GraveGap = 0.4;

    /// <summary>ρ² of 0.36: length explains more than a third of the order of the rewards. Honest answers to harder questions are longer, too.</summary>
    private const double StrongCorrelation = 0.6;

    /// <summary>ρ² of 0.72: hardly anything else can decide.</summary>
    private const double NearlyOnlyLength = 0.85;

    /// <summary>A calibrated model of a few hundred pairs has errors of two or three points by chance.</summary>
    private const double CalibrationError = 0.05;

    private const double ManyTies = 0.01;

    /// <summary>Points by which a category must be worse than the others.</summary>
    private const double WorseCategory = 0.1;

    /// <summary>Below this accuracy a model has no say in whether labels are right.</summary>
    private const double Credible = 0.7;

    public static IReadOnlyList<RewardFinding> Of(RewardReport report)
    {
        // Of equally grave ones, causes come before what follows from them.
        var found = (IReadOnlyList<RewardFinding>)[.. Length(report), .. Ties(report), .. Accuracy(report), .. Categories(report), .. Calibration(report), .. Labels(report)];
        var clean = found.All(finding => finding.Level == FindingLevel.Info)
            ? [new RewardFinding("nothing_found", FindingLevel.Info, "Nothing else stands out: no preference for long or short answers, no ties, no weak category was found in these pairs.")]
            : Array.Empty<RewardFinding>();
        var given = report.CritiquesGiven
            ? [new RewardFinding(
                "critiques_given", FindingLevel.Info,
                "The answers were scored after the critiques of the rows. In use the model writes its own critiques, so these figures flatter it.")]
            : Array.Empty<RewardFinding>();
        return [Summary(report), .. given, .. found.OrderByDescending(finding => finding.Level), .. clean];
    }

    private static RewardFinding Summary(RewardReport report)
    {
        var accuracy = report.Accuracy;
        var uncertain = Points(2 * Error(accuracy));
        var prompts = report.AllRightPrompts.Of < accuracy.Of
            ? Invariant($" Of the {report.AllRightPrompts.Of} prompts, all pairs are right in {Percent(report.AllRightPrompts.Value)}.")
            : "";
        return new("accuracy", FindingLevel.Info, Invariant(
            $"The model scores the better answer higher in {Percent(accuracy.Value)} of {accuracy.Of} pairs that it was not trained on, give or take {uncertain}. Guessing would be right in 50 %.{prompts}"));
    }

    private static IEnumerable<RewardFinding> Accuracy(RewardReport report)
    {
        var (accuracy, chance) = (report.Accuracy, 0.5 / Math.Sqrt(report.Accuracy.Of));
        if (report.TieRate < 0.5 && accuracy.Value < 0.5 - (Significant * chance))
        {
            yield return new(
                "worse_than_chance", FindingLevel.Problem, "The model prefers the worse answer more often than the better one.",
                "Look whether the columns chosen and rejected are swapped in the training rows or in the held-out ones.");
        }
        else if (report.TieRate < 0.5 && accuracy.Value < 0.5 + (Significant * chance))
        {
            var length = report.Length.ChosenLonger.Value - report.Length.ChosenShorter.Value;
            yield return Math.Abs(length) >= GraveGap ? new(
                "no_better_than_chance", FindingLevel.Problem,
                "Over all pairs this is no better than guessing: what length gains where it happens to be right, it loses where it is not.") : new(
                "no_better_than_chance", FindingLevel.Problem, "This is no better than guessing: the model has not learned which answers are better, or the pairs are too few to see it.",
                "Train on more pairs or for longer, raise optimizer.learning_rate, take a larger base model; and look at some pairs: would you know the better answer?");
        }

        if (accuracy.Of < FewPairs)
        {
            yield return new(
                "few_pairs", FindingLevel.Warning, Invariant($"Only {accuracy.Of} pairs were held out, so every figure here is rough."),
                "Hold out a few hundred pairs (data.validation or data.validation_split).");
        }
    }

    private static IEnumerable<RewardFinding> Ties(RewardReport report)
    {
        if (report.TieRate == 1)
        {
            yield return new(
                "constant", FindingLevel.Problem, "The model gives both answers of every pair the same reward: it tells no answers apart.",
                "Look whether the loss fell at all; a learning rate that is far too high can do this, too.");
        }
        else if (report.TieRate > ManyTies)
        {
            yield return new(
                "ties", FindingLevel.Warning, Invariant($"Both answers get the same reward in {Percent(report.TieRate)} of the pairs; these count as wrong."),
                "Score in float32: few bits make small differences equal.");
        }
    }

    private static IEnumerable<RewardFinding> Length(RewardReport report)
    {
        var length = report.Length;
        var (longer, shorter) = (length.ChosenLonger, length.ChosenShorter);
        var gap = longer.Value - shorter.Value;
        var both = longer.Of >= FewOfAKind && shorter.Of >= FewOfAKind;
        var biased = false;
        if (both && Math.Abs(gap) >= NoticeableGap && Math.Abs(gap) > Significant * Math.Sqrt(Square(Error(longer)) + Square(Error(shorter))))
        {
            biased = true;
            var level = Math.Abs(gap) >= GraveGap ? FindingLevel.Problem : FindingLevel.Warning;
            var (code, liked, other) = gap > 0 ? ("prefers_longer", "longer", "shorter") : ("prefers_shorter", "shorter", "longer");
            var (hard, easy) = gap > 0 ? (shorter, longer) : (longer, shorter);
            yield return new(
                code, level, Invariant(
                    $"The model prefers {liked} answers: where the better answer is the {other} one it is right in {Percent(hard.Value)} of the {hard.Of} pairs, where it is the {liked} one in {Percent(easy.Value)} of the {easy.Of}."),
                $"Add training pairs whose better answer is the {other} one, until both kinds are about as frequent. Used as the reward of training, this model would make answers {liked}, not better.");
        }

        if ((length.PairSpearman ?? 0) is var within && Math.Abs(within) >= StrongCorrelation)
        {
            biased = true;
            yield return new(
                "reward_follows_length", Math.Abs(within) >= NearlyOnlyLength ? FindingLevel.Problem : FindingLevel.Warning, Invariant(
                    $"The reward follows the length of the answer: of two answers, the {(within > 0 ? "longer" : "shorter")} one nearly always gets the higher reward, and the more so the more they differ (rank correlation {within:F2}; 0 would be none, 1 perfect)."),
                both ? null : "Whether it knows good from long cannot be told from these pairs; hold out pairs whose better answer is the shorter one, too.");
        }

        var baseline = Math.Max(length.LongerShare, length.ShorterShare);
        if (baseline >= 0.6 && report.Accuracy.Of >= 2 * FewOfAKind)
        {
            var which = length.LongerShare > length.ShorterShare ? "longer" : "shorter";
            if (report.Accuracy.Value <= baseline + (2 * Error(report.Accuracy)) && report.Accuracy.Value > 0.5)
            {
                yield return new(
                    "no_better_than_length", biased ? FindingLevel.Problem : FindingLevel.Warning, Invariant(
                        $"Choosing the {which} answer without reading it would be right in {Percent(baseline)} of these pairs; the model, in {Percent(report.Accuracy.Value)}, is no better than that."),
                    "The accuracy above proves nothing by itself. Judge the model on pairs whose answers have similar lengths.");
            }
            else if (!both)
            {
                yield return new(
                    "one_sided_lengths", FindingLevel.Warning, Invariant(
                        $"The {which} answer is the better one in {Percent(baseline)} of these pairs, so they cannot show whether the model looks at anything but length."),
                    $"Hold out pairs in which the {(which == "longer" ? "shorter" : "longer")} answer is the better one.");
            }
        }
    }

    private static IEnumerable<RewardFinding> Calibration(RewardReport report)
    {
        var calibration = report.Calibration;
        var lead = calibration.MeanConfidence - calibration.MeanRight;
        if (report.TieRate == 1 || calibration.Error < CalibrationError || Math.Abs(lead) < 2 * Error(report.Accuracy))
        {
            yield break;
        }

        yield return new(
            lead > 0 ? "too_sure" : "too_unsure", FindingLevel.Warning, Invariant(
                $"The model is too {(lead > 0 ? "sure of itself" : "unsure of itself")}: read as probabilities, its rewards claim to be right in {Percent(calibration.MeanConfidence)} of the pairs, and {(lead > 0 ? "only " : "")}{Percent(calibration.MeanRight)} are (mean error {Percent(calibration.Error)})."),
            lead > 0
                ? "The order of answers is not touched by this. Where differences of rewards are used as numbers, train fewer epochs or divide the rewards by a constant above 1."
                : "The order of answers is not touched by this. Where differences of rewards are used as numbers, train longer or multiply the rewards by a constant above 1.");
    }

    private static IEnumerable<RewardFinding> Categories(RewardReport report)
    {
        var (all, right) = (report.Categories.Sum(category => category.Accuracy.Of), report.Categories.Sum(category => category.Accuracy.Count));
        foreach (var category in report.Categories)
        {
            var others = Share.From(right - category.Accuracy.Count, all - category.Accuracy.Of);
            var worse = others.Value - category.Accuracy.Value;
            if (category.Accuracy.Of >= FewOfAKind && others.Of >= FewOfAKind && worse >= WorseCategory
                && worse > Significant * Math.Sqrt(Square(Error(others)) + Square(Error(category.Accuracy))))
            {
                yield return new(
                    "weak_category", FindingLevel.Warning, Invariant(
                        $"The model is weaker in category '{category.Name}': right in {Percent(category.Accuracy.Value)} of its {category.Accuracy.Of} pairs, against {Percent(others.Value)} of the others."),
                    "Add training pairs of this kind, or use the model for the other kinds only.");
            }
        }
    }

    private static IEnumerable<RewardFinding> Labels(RewardReport report)
    {
        if (report.Labels.ContradictedCount == 0 || report.Accuracy.Value < Credible)
        {
            yield break;
        }

        var rows = string.Join(", ", report.Labels.Contradicted.Take(8).Select(row => row.Row));
        yield return new(
            "contradicted_labels", FindingLevel.Info, Invariant(
                $"In {report.Labels.ContradictedCount} pairs the model is at least {Percent(RewardEvaluation.SureOfTheOther)} sure that the other answer is the better one (rows {rows}{(report.Labels.ContradictedCount > 8 ? ", …" : "")})."),
            "Read some of them: the model may be wrong, or chosen and rejected may be swapped there.");
    }

    /// <summary>Standard error of a share; with one more right and one more wrong, or none and all would be certain.</summary>
    private static double Error(Share share)
    {
        var value = (share.Count + 1.0) / (share.Of + 2);
        return Math.Sqrt(value * (1 - value) / (share.Of + 2));
    }

    private static double Square(double number) => number * number;

    private static string Points(double share) => share >= 0.0995 ? Invariant($"{100 * share:F0} points") : Invariant($"{100 * share:F1} points");

    internal static string Percent(double share) => Invariant($"{100 * share:F0} %");

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);
}
