using System.Text.Json;
using System.Xml.Linq;
using TrainingService.Training.Data;
using TrainingService.Training.Rewards;

namespace TrainingService.Training.Tests.Rewards;

/// <summary>Figures of four pairs that can be worked out by hand, and the properties of many.</summary>
public class RewardEvaluationTests
{
    // Margins 2, 0, -1, 0.5; the chosen answer longer by 5, 0, -5, 4 tokens; the first two of one prompt.
    private static readonly ScoredPair[] Four =
    [
        new(2, 0, 10, 5) { Row = 1, Prompt = 1, Category = "a", StatedMargin = 3 },
        new(1, 1, 4, 4) { Row = 2, Prompt = 1, Category = "a" },
        new(0, 1, 3, 8) { Row = 3, Prompt = 2, Category = "b", StatedMargin = 1 },
        new(3, 2.5, 6, 2) { Row = 4, Prompt = 3, Category = "b", StatedMargin = 2 },
    ];

    [Fact]
    public void Accuracy_counts_a_tie_as_wrong_and_a_prompt_as_right_when_all_its_pairs_are()
    {
        var report = RewardEvaluation.Of(Four);

        Assert.Equal(new Share(2, 4, 0.5, 0.25), report.Accuracy);   // √(0.5 · 0.5 / 4)
        Assert.Equal(0.25, report.TieRate);
        Assert.Equal((1, 3), (report.AllRightPrompts.Count, report.AllRightPrompts.Of));
        Assert.Equal([("a", 1, 2, 1.0), ("b", 1, 2, -0.25)], report.Categories.Select(category => (category.Name, category.Accuracy.Count, category.Accuracy.Of, category.MeanMargin)));
    }

    [Fact]
    public void Margins_are_described_by_nearest_ranks_and_a_histogram_with_an_edge_at_zero()
    {
        var margins = RewardEvaluation.Of(Four).Margins;

        Assert.Equal(0.375, margins.Mean);
        Assert.Equal(1.0825318, margins.Deviation, 6);   // √(5.25 / 4 - 0.375²)
        Assert.Equal([-1, -1, 0, 2, 2], new[] { 0, 25, 50, 95, 100 }.Select(percent => margins.Percentiles[percent]));
        Assert.Equal(101, margins.Percentiles.Count);
        Assert.Contains(margins.Edges, edge => edge == 0);
        Assert.Equal(margins.Counts.Count + 1, margins.Edges.Count);
        Assert.Equal(4, margins.Counts.Sum());
        Assert.Equal(1, margins.Edges.Zip(margins.Counts).Where(bin => bin.First < 0).Sum(bin => bin.Second));
    }

    [Fact]
    public void Calibration_compares_what_sigma_of_the_margin_claims_with_what_is_right()
    {
        var calibration = RewardEvaluation.Of(Four).Calibration;

        // σ(2) = 0.880797, σ(1) = 0.731059, σ(0.5) = 0.622459, the tie 0.5 and half right; each alone in its bin.
        Assert.Equal((0.119203 + 0 + 0.731059 + 0.377541) / 4, calibration.Error, 6);
        Assert.Equal((0.880797 + 0.5 + 0.731059 + 0.622459) / 4, calibration.MeanConfidence, 6);
        Assert.Equal(2.5 / 4, calibration.MeanRight);
        Assert.Equal([0.5, 0.6, 0.7, 0.85], calibration.Bins.Where(bin => bin.Pairs == 1).Select(bin => Math.Round(bin.From, 9)));
    }

    [Fact]
    public void Margins_that_are_log_odds_are_calibrated()
    {
        // Of each 100 pairs with margin ln(p / (1 - p)), p are right; the others have the sign turned.
        var pairs = new[] { 60, 75, 90 }.SelectMany(percent => Enumerable.Range(0, 100).Select(index =>
            new ScoredPair((index < percent ? 1 : -1) * Math.Log(percent / (100.0 - percent)), 0, 5, 5))).ToList();

        var calibration = RewardEvaluation.Of(pairs).Calibration;

        Assert.Equal(0, calibration.Error, 9);
        Assert.Equal(0.75, calibration.MeanRight, 9);
    }

    [Fact]
    public void Length_is_looked_at_by_which_answer_is_longer_and_by_correlation()
    {
        var length = RewardEvaluation.Of(Four).Length;

        Assert.Equal([(2, 2), (0, 1), (0, 1)], new[] { length.ChosenLonger, length.ChosenShorter, length.SameLength }.Select(share => (share.Count, share.Of)));
        Assert.Equal((0.5, 0.25), (length.LongerShare, length.ShorterShare));
        // Tokens 10 4 3 6 5 4 8 2 and rewards 2 1 0 3 0 1 1 2.5; their ranks 8 3.5 2 6 5 3.5 7 1 and 6 4 1.5 8 1.5 4 4 7.
        Assert.Equal(0.1892602682, length.Pearson!.Value, 9);
        Assert.Equal(0.1852416613, length.Spearman!.Value, 9);
        Assert.Equal(0.9878783399, length.PairSpearman!.Value, 9);   // both orders: 5 0 -5 4 -5 0 5 -4 against 2 0 -1 0.5 -2 0 1 -0.5
        Assert.Equal([(-5, -5, 0), (0, 0, 0), (4, 4, 1), (5, 5, 1)], length.Buckets.Select(bucket => (bucket.From, bucket.To, bucket.Accuracy.Count)));
    }

    [Fact]
    public void Equal_differences_of_length_stay_in_one_bucket()
    {
        var pairs = Enumerable.Range(0, 1000).Select(index => new ScoredPair(index % 2, 0.5, 20 + Math.Max(0, (index % 100) - 60), 20)).ToList();

        var buckets = RewardEvaluation.Of(pairs).Length.Buckets;

        Assert.Equal(1000, buckets.Sum(bucket => bucket.Accuracy.Of));
        Assert.Equal((0, 610), (buckets[0].To, buckets[0].Accuracy.Of));
        Assert.All(buckets.Zip(buckets.Skip(1)), pair => Assert.True(pair.First.To < pair.Second.From));
        Assert.InRange(buckets.Count, 2, 8);
    }

    [Fact]
    public void No_bucket_holds_shorter_and_longer_answers()
    {
        var buckets = RewardEvaluation.Of([.. Enumerable.Range(-37, 100).Select(by => new ScoredPair(1, 0, 100 + by, 100))]).Length.Buckets;

        Assert.Equal(37, buckets.Where(bucket => bucket.To < 0).Sum(bucket => bucket.Accuracy.Of));
        Assert.Equal(63, buckets.Where(bucket => bucket.From >= 0).Sum(bucket => bucket.Accuracy.Of));
    }

    [Fact]
    public void Agreement_is_told_by_confidence_and_the_most_contradicted_rows_by_name()
    {
        ScoredPair[] pairs = [.. Four, new(-4, 0, 5, 5) { Row = 9 }, new(0, 3, 5, 5) { Row = 7 }];

        var labels = RewardEvaluation.Of(pairs).Labels;

        Assert.Equal([(0.5, 0, 1), (0.6, 1, 1), (0.7, 0, 1), (0.8, 1, 1), (0.9, 0, 0), (0.95, 0, 2)], labels.Buckets.Select(bucket => (bucket.From, bucket.Agreement.Count, bucket.Agreement.Of)));
        Assert.Equal([9, 7], labels.Contradicted.Select(row => row.Row));
        Assert.Equal(0.982014, labels.Contradicted[0].Confidence, 6);   // σ(4)
        Assert.Equal(1, labels.StatedMarginSpearman!.Value, 9);   // stated 3 1 2, found 2 -1 0.5
    }

    [Fact]
    public void Constant_rewards_have_no_correlation_and_one_bin()
    {
        var report = RewardEvaluation.Of([new(0.3, 0.3, 5, 6), new(0.3, 0.3, 8, 3)]);

        Assert.Equal((null, null, null), (report.Length.Pearson, report.Length.Spearman, report.Length.PairSpearman));
        Assert.Equal(1, report.TieRate);
        Assert.Equal([2], report.Margins.Counts);
        Assert.Equal(4, Assert.Single(report.Rewards.Counts, count => count > 0));
        Assert.Contains(report.Findings, finding => finding.Code == "constant");
    }

    [Fact]
    public void A_single_pair_of_any_size_is_described()
    {
        foreach (var size in new[] { 1e-30, 1, 1e30 })
        {
            var report = RewardEvaluation.Of([new(size, -size, 1, 1)]);

            Assert.Equal(1, report.Accuracy.Value);
            Assert.Equal(1, report.Margins.Counts.Sum());
            Assert.InRange(report.Rewards.Counts.Count, 1, 60);
        }
    }

    [Fact]
    public void An_example_is_its_prompt_and_the_lengths_of_its_answers()
    {
        const int No = Example.Ignored;
        Example pair = new([1, 7, 8, 4, 5, 2, 1, 7, 8, 6, 2], [No, No, No, 4, 5, 2, No, No, No, 6, 2], Row: 3) { Ends = [6, 11], Value = 0.5f, Category = "x" };
        Example other = new([1, 7, 8, 9, 1, 7, 8, 3, 3], [No, No, No, 9, No, No, No, 3, 3], Row: 4) { Ends = [4, 9] };

        var (first, second) = (RewardWriter.PairOf(pair, RowUse.Pairs, 2, 1), RewardWriter.PairOf(other, RowUse.Pairs, 2, 1));

        Assert.Equal((3, 2, 3, 0.5, "x"), (first.ChosenTokens, first.RejectedTokens, first.Row, first.StatedMargin!.Value, first.Category));
        Assert.Equal((1, 2), (second.ChosenTokens, second.RejectedTokens));
        Assert.Equal(first.Prompt, second.Prompt);
        Assert.NotEqual(first.Prompt, RewardWriter.PairOf(pair with { InputIds = [1, 7, 9, 4, 5, 2, 1, 7, 9, 6, 2] }, RowUse.Pairs, 2, 1).Prompt);

        // Of critiques, the labelled ends; the answers are 4 5 2 and 6 after the prompt 1 7 8.
        Example critiqued = new([1, 7, 8, 4, 5, 2, 11, 12, 1, 7, 8, 6, 13], [No, No, No, No, No, No, 11, 12, No, No, No, No, 13], Row: 5) { Ends = [8, 13] };
        var third = RewardWriter.PairOf(critiqued, RowUse.Critiques, 2, 1);
        Assert.Equal((3, 1, first.Prompt), (third.ChosenTokens, third.RejectedTokens, third.Prompt));
        Assert.Contains(RewardEvaluation.Of([third], critiquesGiven: true).Findings, finding => finding.Code == "critiques_given");
    }

    [Fact]
    public void What_is_written_can_be_read_again_and_its_drawings_are_well_formed()
    {
        using var folder = new TemporaryFolder();
        var pairs = Enumerable.Range(0, 300).Select(index => new ScoredPair(Math.Sin(index), 0.3 * Math.Cos(3 * index), 5 + (index % 40), 20)
        {
            Row = index + 1,
            Prompt = (ulong)(index / 2),
            Category = index % 3 == 0 ? "chat <b>|&\u0001" : "code",
        }).ToList();

        var written = RewardWriter.Write(pairs, folder.Path, new(new Dictionary<string, RewardSection> { ["All"] = new() { Subsets = new Dictionary<string, double> { ["code"] = 2, ["law"] = 1 } } }));

        var read = JsonSerializer.Deserialize<RewardReport>(File.ReadAllBytes(folder.File(RewardWriter.FileName)), SpecJson.Options)!;
        Assert.Equal(written.Findings, read.Findings);
        Assert.Equal((written.Accuracy, written.Calibration.Error, written.Length.Spearman), (read.Accuracy, read.Calibration.Error, read.Length.Spearman));
        Assert.Equal(written.Rewards.Percentiles, read.Rewards.Percentiles);
        Assert.Equal((RewardReport.CurrentFormat, written.Sections!.Overall), (read.Format, read.Sections!.Overall));
        var page = File.ReadAllText(folder.File(RewardWriter.PageName));
        Assert.StartsWith("# What this reward model does on rows that it was not trained on\n\n- The model scores the better answer higher in ", page, StringComparison.Ordinal);
        Assert.Contains("| chat &lt;b&gt;\\|&amp;  |", page, StringComparison.Ordinal);
        foreach (var drawing in new[] { "margins.svg", "reliability.svg", "length.svg", "categories.svg" })
        {
            Assert.Equal("svg", XDocument.Load(folder.File(drawing)).Root!.Name.LocalName);
            Assert.Contains($"]({drawing})", page, StringComparison.Ordinal);
        }
    }
}
