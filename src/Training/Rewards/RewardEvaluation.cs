namespace TrainingService.Training.Rewards;

/// <summary>Figures of scored pairs.</summary>
public static class RewardEvaluation
{
    /// <summary>Rows that the model contradicts with at least this confidence are worth a person's look.</summary>
    internal const double SureOfTheOther = 0.9;

    private const int CalibrationBins = 10;
    private const int HistogramBins = 24;
    private const int LengthBuckets = 8;
    private const int MostContradicted = 20;
    private static readonly double[] Confidences = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1];

    /// <param name="pairs">At least one; all rewards finite.</param>
    /// <param name="sections">Which categories belong together; null: nobody says.</param>
    /// <param name="critiquesGiven">See <see cref="RewardReport.CritiquesGiven"/>.</param>
    public static RewardReport Of(IReadOnlyList<ScoredPair> pairs, RewardSections? sections = null, bool critiquesGiven = false)
    {
        ArgumentOutOfRangeException.ThrowIfZero(pairs.Count, nameof(pairs));
        var categories = CategoriesOf(pairs);
        var report = new RewardReport
        {
            Findings = [],
            CritiquesGiven = critiquesGiven,
            Accuracy = Right(pairs),
            TieRate = pairs.Count(pair => pair.Margin == 0) / (double)pairs.Count,
            AllRightPrompts = AllRight(pairs),
            Margins = DistributionOf(pairs.Select(pair => pair.Margin)),
            Rewards = DistributionOf(pairs.SelectMany(pair => new[] { pair.Chosen, pair.Rejected })),
            Calibration = CalibrationOf(pairs),
            Length = LengthOf(pairs),
            Categories = categories,
            Labels = AgreementOf(pairs),
            Sections = sections?.Score(categories.ToDictionary(category => category.Name, category => category.Accuracy.Value)),
        };
        return report with { Findings = RewardFindings.Of(report) };
    }

    /// <summary>σ(|margin|): how sure the model is of the answer that it prefers.</summary>
    public static double Confidence(double margin) => 1 / (1 + Math.Exp(-Math.Abs(margin)));

    private static Share Right(IEnumerable<ScoredPair> pairs)
    {
        var (right, all) = (0, 0);
        foreach (var pair in pairs)
        {
            (right, all) = (right + (pair.IsRight ? 1 : 0), all + 1);
        }

        return Share.From(right, all);
    }

    private static Share AllRight(IReadOnlyList<ScoredPair> pairs)
    {
        var prompts = new Dictionary<ulong, bool>();
        foreach (var pair in pairs)
        {
            prompts[pair.Prompt] = pair.IsRight && prompts.GetValueOrDefault(pair.Prompt, true);
        }

        return Share.From(prompts.Values.Count(right => right), prompts.Count);
    }

    /// <summary>Percentiles by nearest rank, and a histogram with bins of one width from the least number to the greatest.</summary>
    internal static Distribution DistributionOf(IEnumerable<double> numbers)
    {
        var sorted = numbers.Order().ToArray();
        var mean = sorted.Average();
        var deviation = Math.Sqrt(sorted.Average(number => (number - mean) * (number - mean)));
        var percentiles = Enumerable.Range(0, 101)
            .Select(percent => sorted[Math.Max(0, (int)Math.Ceiling(percent / 100.0 * sorted.Length) - 1)]).ToList();

        // Zero stands at an edge, so that no bin of margins holds right and wrong pairs.
        var largest = Math.Max(Math.Abs(sorted[0]), Math.Abs(sorted[^1]));
        var width = Width(Math.Max((sorted[^1] - sorted[0]) / HistogramBins, 1e-9 * largest));   // equal but for rounding: one bin or two
        var (first, last) = ((int)Math.Floor(sorted[0] / width), (int)Math.Floor(sorted[^1] / width));
        var counts = new int[last - first + 1];
        foreach (var number in sorted)
        {
            counts[Math.Clamp((int)Math.Floor(number / width) - first, 0, counts.Length - 1)]++;
        }

        return new(mean, deviation, percentiles, [.. Enumerable.Range(first, counts.Length + 1).Select(edge => edge * width)], counts);
    }

    /// <summary>The next larger number of the form 1, 2 or 5 times a power of ten.</summary>
    private static double Width(double least)
    {
        if (least <= 0)
        {
            return 1;   // all numbers are 0
        }

        var unit = Math.Pow(10, Math.Floor(Math.Log10(least)));
        return unit * ((least / unit) switch { <= 1 => 1, <= 2 => 2, <= 5 => 5, _ => 10 });
    }

    private static RewardCalibration CalibrationOf(IReadOnlyList<ScoredPair> pairs)
    {
        var (count, confidence, right) = (new int[CalibrationBins], new double[CalibrationBins], new double[CalibrationBins]);
        foreach (var pair in pairs)
        {
            var sure = Confidence(pair.Margin);
            var bin = Math.Min(CalibrationBins - 1, (int)((sure - 0.5) * 2 * CalibrationBins));
            count[bin]++;
            confidence[bin] += sure;
            right[bin] += pair.IsRight ? 1 : pair.Margin == 0 ? 0.5 : 0;
        }

        var bins = Enumerable.Range(0, CalibrationBins).Select(bin => new ReliabilityBin(
            0.5 + (bin * 0.5 / CalibrationBins), 0.5 + ((bin + 1) * 0.5 / CalibrationBins), count[bin],
            confidence[bin] / Math.Max(1, count[bin]), right[bin] / Math.Max(1, count[bin]))).ToList();
        return new(
            bins.Sum(bin => bin.Pairs * Math.Abs(bin.MeanConfidence - bin.MeanRight)) / pairs.Count,
            confidence.Sum() / pairs.Count, right.Sum() / pairs.Count, bins);
    }

    private static LengthBias LengthOf(IReadOnlyList<ScoredPair> pairs)
    {
        var rewards = pairs.Select(pair => pair.Chosen).Concat(pairs.Select(pair => pair.Rejected)).ToList();
        var tokens = pairs.Select(pair => (double)pair.ChosenTokens).Concat(pairs.Select(pair => (double)pair.RejectedTokens)).ToList();
        return new(
            Right(pairs.Where(pair => pair.LongerBy > 0)), Right(pairs.Where(pair => pair.LongerBy < 0)), Right(pairs.Where(pair => pair.LongerBy == 0)),
            Ranks.Pearson(tokens, rewards), Ranks.Spearman(tokens, rewards), WithinPairs(pairs), Buckets(pairs));
    }

    /// <summary>Spearman's correlation of differences. Which answer is taken from which is arbitrary, so each pair counts in both orders.</summary>
    private static double? WithinPairs(IReadOnlyList<ScoredPair> pairs)
    {
        var lengths = pairs.SelectMany(pair => new double[] { pair.LongerBy, -pair.LongerBy }).ToList();
        var margins = pairs.SelectMany(pair => new[] { pair.Margin, -pair.Margin }).ToList();
        return Ranks.Spearman(lengths, margins);
    }

    /// <summary>Buckets of as many pairs each as equal differences allow, which stay together; none holds both signs.</summary>
    private static List<LengthBucket> Buckets(IReadOnlyList<ScoredPair> pairs)
    {
        var sorted = pairs.OrderBy(pair => pair.LongerBy).ToList();
        var buckets = new List<LengthBucket>();
        for (var first = 0; first < sorted.Count;)
        {
            var wanted = (sorted.Count - first + LengthBuckets - buckets.Count - 1) / Math.Max(1, LengthBuckets - buckets.Count);
            var end = Math.Min(sorted.Count, first + Math.Max(1, wanted));
            while (end < sorted.Count && sorted[end].LongerBy == sorted[end - 1].LongerBy)
            {
                end++;
            }

            while (sorted[first].LongerBy < 0 && sorted[end - 1].LongerBy >= 0)
            {
                end--;
            }

            buckets.Add(new(sorted[first].LongerBy, sorted[end - 1].LongerBy, Right(sorted.Take(first..end))));
            first = end;
        }

        return buckets;
    }

    private static List<CategoryFigures> CategoriesOf(IReadOnlyList<ScoredPair> pairs) =>
    [
        .. pairs.Where(pair => pair.Category is not null).GroupBy(pair => pair.Category!)
            .Select(group => new CategoryFigures(group.Key, Right(group), group.Average(pair => pair.Margin)))
            .OrderBy(category => category.Accuracy.Value).ThenBy(category => category.Name, StringComparer.Ordinal),
    ];

    private static LabelAgreement AgreementOf(IReadOnlyList<ScoredPair> pairs)
    {
        var buckets = Confidences.Zip(Confidences.Skip(1)).Select(range => new AgreementBucket(
            range.First, range.Second,
            Right(pairs.Where(pair => Confidence(pair.Margin) is var sure && sure >= range.First && (sure < range.Second || range.Second == 1))))).ToList();
        var against = pairs.Where(pair => pair.Margin < 0 && Confidence(pair.Margin) >= SureOfTheOther)
            .OrderBy(pair => pair.Margin).ThenBy(pair => pair.Row).ToList();
        var stated = pairs.Where(pair => pair.StatedMargin is not null).ToList();
        return new(
            buckets, [.. against.Take(MostContradicted).Select(pair => new ContradictedRow(pair.Row, Confidence(pair.Margin)))], against.Count,
            Ranks.Spearman([.. stated.Select(pair => pair.StatedMargin!.Value)], [.. stated.Select(pair => pair.Margin)]));
    }
}
