using TrainingService.Training.Rewards;

namespace TrainingService.Training.Tests.Rewards;

/// <summary>RewardBench's formulas, worked out by hand.</summary>
public class RewardBenchTests
{
    [Fact]
    public void Sections_weight_their_subsets_and_the_overall_score_is_the_mean_of_the_sections()
    {
        var sections = RewardSections.RewardBench;
        var accuracies = sections.Sections.Values.SelectMany(section => section.Subsets.Keys).ToDictionary(name => name, name => name switch
        {
            "alpacaeval-easy" => 1.0,
            "math-prm" => 0.9,
            _ when name.StartsWith("hep-", StringComparison.Ordinal) => 0.6,
            _ => 0.5,
        });

        var scores = sections.Score(accuracies);

        Assert.Equal((100 + (0.5 * 258)) / 358, scores.Sections["Chat"], 12);
        Assert.Equal(0.75, scores.Sections["Reasoning"], 12);   // math-prm weighs 984, as all the code: (0.9 + 0.6) / 2
        Assert.Equal((scores.Sections["Chat"] + 0.5 + 0.5 + 0.75) / 4, scores.Overall!.Value, 12);
        Assert.Equal([358, 456, 740, 1968], sections.Sections.Values.Select(section => section.Subsets.Values.Sum()));
        Assert.Empty(scores.Missing);
    }

    [Fact]
    public void Sections_come_from_a_file_and_count_without_what_the_rows_lack()
    {
        using var folder = new TemporaryFolder();
        File.WriteAllText(folder.File("sections.json"), """{"Chat": {"subsets": {"a": 3, "b": 1}}, "Prior": {"subsets": {"c": 1}, "weight": 0.5}, "Absent": {"subsets": {"d": 2}}}""");

        var scores = RewardSections.Read(folder.File("sections.json")).Score(new Dictionary<string, double> { ["a"] = 1, ["b"] = 0, ["c"] = 0.3 });

        Assert.Equal([("Chat", 0.75), ("Prior", 0.3)], scores.Sections.Select(section => (section.Key, section.Value)));
        Assert.Equal((0.75 + (0.5 * 0.3)) / 1.5, scores.Overall!.Value, 12);
        Assert.Equal(["d"], scores.Missing);
    }

    [Theory]
    [InlineData("{")]
    [InlineData("{}")]
    [InlineData("""{"Chat": null}""")]
    [InlineData("""{"Chat": {"subsets": {}}}""")]
    [InlineData("""{"Chat": {"subsets": {"a": 0}}}""")]
    [InlineData("""{"Chat": {"subsets": {"a": 1}, "wieght": 1}}""")]
    [InlineData(null)]
    public void A_file_that_holds_no_sections_is_refused(string? text)
    {
        using var folder = new TemporaryFolder();
        if (text is not null)
        {
            File.WriteAllText(folder.File("sections.json"), text);
        }

        var error = Assert.Throws<TrainingException>(() => RewardSections.Read(folder.File("sections.json")));

        Assert.Equal((FailureCode.InvalidData, "sections.json"), (error.Code, error.Param));
    }

    [Fact]
    public void A_spec_may_name_sections_of_a_reward_model_and_of_nothing_else()
    {
        IReadOnlyList<SpecError> Errors(string objective, string sections) => SpecJson.Parse(
            $$"""{"model": "m", "data": {"train": "t"}, "objective": {"type": "{{objective}}"}, "evaluation": {"sections": {{sections}} } }""").Errors;

        Assert.Empty(Errors("reward", """{"Chat": {"subsets": {"a": 3}}}"""));
        Assert.Equal("evaluation.sections", Assert.Single(Errors("sft", """{"Chat": {"subsets": {"a": 3}}}""")).Path);
        Assert.StartsWith("evaluation.sections.Chat.subsets", Assert.Single(Errors("reward", """{"Chat": {"subsets": {"a": 0}}}""")).Path, StringComparison.Ordinal);
    }

    [Fact]
    public void Best_of_four_shares_a_tie_at_the_top()
    {
        Assert.Equal(1, BestOfMany.Result([3, 1, 2, 0]));
        Assert.Equal(0, BestOfMany.Result([1, 3, 2, 0]));
        Assert.Equal(0.5, BestOfMany.Result([3, 1, 3, 0]));
        Assert.Equal(0.25, BestOfMany.Result([1, 1, 1, 1]));   // what a constant model gets; of pairs it would get 0
    }

    [Fact]
    public void Ties_total()
    {
        // First prompt: reference gap 2, tied gap 1.5, spread 0.5. Second: gaps -1 and 1, spread 3.
        var total = BestOfMany.Ties(
        [
            (new([3], [1, 0]), new([4, 3.5], [2, 1])),
            (new([1], [2]), new([5, 2], [1, 0])),
        ]);

        // All tied prompts and half of the references are right; half of the gaps exceed the spread; the excess is tanh(1.5/0.5 - 1) and tanh(-1/3 - 1).
        Assert.Equal(0.3 + 0.15 + 0.1 + 0.1 + (0.01 * (Math.Tanh(2) + Math.Tanh(-4.0 / 3)) / 2), total, 12);
    }

    [Fact]
    public void Ties_of_a_constant_model_are_worth_nothing() =>
        Assert.Equal(0, BestOfMany.Ties([(new([1], [1]), new([1, 1], [1]))]));
}
