using TrainingService.Training.Rewards;

namespace TrainingService.Training.Tests.Rewards;

/// <summary>What a person is told of models whose fault is known.</summary>
public class RewardFindingsTests
{
    [Fact]
    public void A_model_that_counts_tokens_is_said_to_prefer_longer_answers()
    {
        // Right where the better answer is longer (97 of 100), wrong where it is shorter (12 of 100).
        var report = Report(
            Pairs(97, right: true, longerBy: 8), Pairs(3, right: false, longerBy: 8), Pairs(12, right: true, longerBy: -8), Pairs(88, right: false, longerBy: -8));

        var finding = Find(report, "prefers_longer");

        Assert.Equal(FindingLevel.Problem, finding.Level);
        Assert.Equal(
            "The model prefers longer answers: where the better answer is the shorter one it is right in 12 % of the 100 pairs, where it is the longer one in 97 % of the 100.",
            finding.Text);
        Assert.Contains("pairs whose better answer is the shorter one", finding.Advice, StringComparison.Ordinal);
        Assert.Equal("prefers_longer", report.Findings[1].Code);   // the gravest stands right after the summary
        Assert.DoesNotContain(report.Findings, other => other.Code == "nothing_found");
    }

    [Fact]
    public void The_other_way_round_it_prefers_shorter_ones()
    {
        var report = Report(
            Pairs(60, right: true, longerBy: 8), Pairs(40, right: false, longerBy: 8), Pairs(85, right: true, longerBy: -8), Pairs(15, right: false, longerBy: -8));

        var finding = Find(report, "prefers_shorter");

        Assert.Equal(FindingLevel.Warning, finding.Level);   // a gap of 25 points
        Assert.StartsWith("The model prefers shorter answers: where the better answer is the longer one it is right in 60 %", finding.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void Where_the_longer_answer_is_always_better_the_bias_shows_in_the_order_and_the_accuracy_is_called_worthless()
    {
        // The reward is the length: right in all pairs, and nothing is known of shorter good answers.
        var report = RewardEvaluation.Of([.. Enumerable.Range(0, 200).Select(index => new ScoredPair(20 + (index % 30), 5 + (index % 7), 20 + (index % 30), 5 + (index % 7)) { Prompt = (ulong)index })]);

        Assert.Equal(1, report.Accuracy.Value);
        Assert.Equal(FindingLevel.Problem, Find(report, "reward_follows_length").Level);
        Assert.Contains("hold out pairs whose better answer is the shorter one", Find(report, "reward_follows_length").Advice, StringComparison.Ordinal);
        var baseline = Find(report, "no_better_than_length");
        Assert.Equal(FindingLevel.Problem, baseline.Level);
        Assert.Equal(
            "Choosing the longer answer without reading it would be right in 100 % of these pairs; the model, in 100 %, is no better than that.", baseline.Text);
    }

    [Fact]
    public void A_good_model_on_balanced_pairs_has_no_fault()
    {
        // Right with confidence 0.88 in 88 %, whatever the lengths are.
        var report = Report(
            Pairs(176, right: true, longerBy: 8), Pairs(24, right: false, longerBy: 8), Pairs(176, right: true, longerBy: -8), Pairs(24, right: false, longerBy: -8));

        Assert.Equal(["accuracy", "nothing_found"], report.Findings.Select(finding => finding.Code));
        Assert.Equal(
            "The model scores the better answer higher in 88 % of 400 pairs that it was not trained on, give or take 3.3 points. Guessing would be right in 50 %.",
            report.Findings[0].Text);
    }

    [Theory]
    [InlineData(200, 200, "no_better_than_chance")]
    [InlineData(100, 300, "worse_than_chance")]
    public void Accuracy_is_compared_with_guessing(int right, int wrong, string code)
    {
        var report = Report(Pairs(right, right: true, longerBy: 0), Pairs(wrong, right: false, longerBy: 0));

        Assert.Equal(FindingLevel.Problem, Find(report, code).Level);
        Assert.DoesNotContain(report.Findings, finding => finding.Code == "contradicted_labels");   // such a model has no say
    }

    [Fact]
    public void Few_pairs_say_little()
    {
        var report = Report(Pairs(30, right: true, longerBy: 0), Pairs(4, right: false, longerBy: 0));

        Assert.Contains("Only 34 pairs", Find(report, "few_pairs").Text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_small_gap_in_few_pairs_is_taken_for_chance()
    {
        var report = Report(
            Pairs(16, right: true, longerBy: 8), Pairs(4, right: false, longerBy: 8), Pairs(11, right: true, longerBy: -8), Pairs(9, right: false, longerBy: -8));

        Assert.DoesNotContain(report.Findings, finding => finding.Code == "prefers_longer");   // 80 % against 55 % of 20 pairs each
    }

    [Fact]
    public void Ties_are_counted()
    {
        var report = Report(Pairs(180, right: true, longerBy: 0), [.. Enumerable.Range(0, 20).Select(_ => new ScoredPair(1, 1, 9, 9))]);

        Assert.Contains("10 % of the pairs", Find(report, "ties").Text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(6.0, 320, "too_sure", "its rewards claim to be right in 100 % of the pairs, and only 80 % are")]
    [InlineData(0.1, 380, "too_unsure", "its rewards claim to be right in 52 % of the pairs, and 95 % are")]
    public void Confidence_that_does_not_fit_is_told(double margin, int right, string code, string text)
    {
        var report = Report(Pairs(right, right: true, longerBy: 0, margin), Pairs(400 - right, right: false, longerBy: 0, margin));

        Assert.Contains(text, Find(report, code).Text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_weak_category_is_named()
    {
        var report = Report(
            Pairs(180, right: true, longerBy: 0, category: "chat"), Pairs(20, right: false, longerBy: 0, category: "chat"),
            Pairs(33, right: true, longerBy: 0, category: "law"), Pairs(27, right: false, longerBy: 0, category: "law"));

        Assert.Equal("The model is weaker in category 'law': right in 55 % of its 60 pairs, against 90 % of the others.", Find(report, "weak_category").Text);
        Assert.Single(report.Findings, finding => finding.Code == "weak_category");
    }

    [Fact]
    public void Labels_that_a_good_model_contradicts_are_named_by_their_rows()
    {
        var report = Report(Pairs(98, right: true, longerBy: 0), [new(0, 4, 9, 9) { Row = 17 }, new(0, 5, 9, 9) { Row = 40 }]);

        Assert.Contains("In 2 pairs the model is at least 90 % sure that the other answer is the better one (rows 40, 17).", Find(report, "contradicted_labels").Text, StringComparison.Ordinal);
    }

    private static RewardReport Report(params IEnumerable<ScoredPair>[] parts) =>
        RewardEvaluation.Of([.. parts.SelectMany(part => part).Select((pair, index) => pair with { Prompt = (ulong)index, Row = pair.Row == 0 ? index + 1 : pair.Row })]);

    // A margin of 2 is a confidence of 0.88.
    private static List<ScoredPair> Pairs(int count, bool right, int longerBy, double margin = 2, string? category = null) =>
        [.. Enumerable.Range(0, count).Select(_ => new ScoredPair(right ? margin : 0, right ? 0 : margin, 20 + longerBy, 20) { Category = category })];

    private static RewardFinding Find(RewardReport report, string code) => Assert.Single(report.Findings, finding => finding.Code == code);
}
