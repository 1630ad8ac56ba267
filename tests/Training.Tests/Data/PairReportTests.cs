using TrainingService.Training.Data;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Data;

/// <summary>What the report on preference rows says of rows beside each other.</summary>
public class PairReportTests
{
    [Fact]
    public void Rows_that_differ_in_case_punctuation_and_space_only_are_near_duplicates()
    {
        using var file = new TextFile("rows.jsonl", Rows(
            ("Who?", "The cat.", "A dog."),
            ("Who?", "The cat.", "A dog."),           // equal
            ("who", "the  CAT!", "a dog"),            // near
            ("Who?", "The cats.", "A dog."),
            ("When?", "The cat.", "A dog."),
            ("Who?", "?!", "..."), ("Who?", "!?", "...")));   // nothing but punctuation: compared as it is

        using var data = file.Prepare(use: RowUse.Pairs);

        Assert.Equal((1, 1, 0), (data.Report.Train.Duplicates, data.Report.Train.Pairs!.NearDuplicates, data.Report.Train.Pairs.Contradicting));
        Assert.Contains("1 rows repeat an earlier row of their file but for case, punctuation and white space.", data.Report.Warnings);
    }

    [Fact]
    public void Labels_that_contradict_each_other_are_counted()
    {
        using var file = new TextFile("rows.jsonl", Rows(
            ("Who?", "The cat.", "A dog."), ("Who?", "A dog.", "The cat."), ("Who?", "the cat", "a dog"),   // three rows, both orders
            ("When?", "A dog.", "The cat."), ("Where?", "Here.", "There.")));

        using var data = file.Prepare(use: RowUse.Pairs);

        Assert.Equal((3, 1), (data.Report.Train.Pairs!.Contradicting, data.Report.Train.Pairs.NearDuplicates));
        Assert.Contains(data.Report.Warnings, warning => warning.StartsWith("3 rows contradict each other", StringComparison.Ordinal));
    }

    [Fact]
    public void Contradictions_are_found_in_conversations_and_across_layouts_of_one_file()
    {
        const string Good = """[{"role": "assistant", "content": "Yes."}]""", Bad = """[{"role": "assistant", "content": "No."}]""", Prompt = """[{"role": "user", "content": "Well?"}]""";
        using var file = new TextFile("rows.jsonl",
            $$"""{"prompt": {{Prompt}}, "chosen": {{Good}}, "rejected": {{Bad}}}""" + "\n" + $$"""{"prompt": {{Prompt}}, "chosen": {{Bad}}, "rejected": {{Good}}}""" + "\n");

        using var data = file.Prepare(use: RowUse.Pairs);

        Assert.Equal(2, data.Report.Train.Pairs!.Contradicting);
    }

    [Fact]
    public void Phrases_by_which_the_answers_can_be_told_apart_are_named()
    {
        var rows = Enumerable.Range(0, 40).Select(i => (
            $"Question {i}?",
            i % 2 == 0 ? $"Sure, here is number {i} and {i * i}." : $"Well {i} of course {i + 3}.",
            i % 4 < 3 ? $"It is {i * 7}, as an AI." : $"The answer {i} is {i + 1}!")).ToArray();
        using var file = new TextFile("rows.jsonl", Rows(rows));

        using var data = file.Prepare(use: RowUse.Pairs);

        Assert.Equal(
            [
                new PhrasePattern(PhrasePlace.Opens, "It", 0, 0.75),
                new PhrasePattern(PhrasePlace.Opens, "The", 0, 0.25),
                new PhrasePattern(PhrasePlace.Ends, "as an AI.", 0, 0.75),
                new PhrasePattern(PhrasePlace.Opens, "Sure, here is", 0.5, 0),
                new PhrasePattern(PhrasePlace.Opens, "Well", 0.5, 0),
            ],
            data.Report.Train.Pairs!.Patterns.OrderBy(pattern => pattern.ChosenShare).ThenBy(pattern => pattern.Text == "as an AI.").ThenBy(pattern => pattern.Text, StringComparer.Ordinal));
        Assert.Contains(
            "\"Sure, here is\" opens 50 % of the chosen answers and 0 % of the rejected ones: a model may learn this phrase in place of quality.", data.Report.Warnings);
    }

    [Fact]
    public void Phrases_that_both_kinds_have_are_no_pattern()
    {
        using var file = new TextFile("rows.jsonl", Rows([.. Enumerable.Range(0, 40).Select(i => ($"Question {i}?", $"I think {i} so.", $"I think {i * 3} not."))]));

        using var data = file.Prepare(use: RowUse.Pairs);

        Assert.Equal(["not.", "so."], data.Report.Train.Pairs!.Patterns.Select(pattern => pattern.Text).Order());
    }

    [Fact]
    public void Frequent_phrases_are_counted_in_a_bounded_number_of_places()
    {
        var counts = new PhraseCounts();
        const int Pairs = 50_000;
        for (var i = 0; i < Pairs; i++)
        {
            counts.Add(new(PhrasePlace.Opens, i % 3 == 0 ? "Often" : $"rare {i}"), chosen: true);
            counts.Add(new(PhrasePlace.Opens, $"other {i}"), chosen: false);
        }

        var pattern = Assert.Single(counts.Patterns(Pairs));
        Assert.Equal(("Often", 0.0), (pattern.Text, pattern.RejectedShare));
        Assert.InRange(pattern.ChosenShare, 0.3331, 0.3334);
        Assert.InRange(counts.Known, 1, 10_000);
    }

    [Fact]
    public void All_of_it_comes_back_with_the_tokens_from_the_cache()
    {
        using var folder = new TemporaryFolder();
        using var file = new TextFile("rows.jsonl", Rows(
        [
            ("Who?", "The cat.", "A dog."), ("Who?", "A dog.", "The cat."), ("who", "the  CAT!", "a dog"),
            .. Enumerable.Range(0, 30).Select(i => ($"Question {i}?", $"Sure, {i}.", $"No {i * i}.")),
        ]));
        var cache = new TokenCache(folder.Path, tokenizerSha256: "x");
        PreparedData Read() => DataSets.Prepare(
            new() { Train = file.Path, ValidationSplit = 0.3 }, RowUse.Pairs, new CharacterTokenizer(), 256, 1, progress: null, TestContext.Current.CancellationToken, cache);

        using var made = Read();
        using var found = Read();

        Assert.NotEmpty(made.Report.Train.Pairs!.Patterns);
        Assert.Equal(made.Report.Train.Pairs.Patterns, found.Report.Train.Pairs!.Patterns);
        Assert.Equal(Figures(made), Figures(found));
        Assert.Equal(made.Report.Warnings, found.Report.Warnings);

        static (int, int, int, int) Figures(PreparedData data) => (
            data.Report.Train.Pairs!.NearDuplicates, data.Report.Train.Pairs.Contradicting, data.Report.Validation!.Pairs!.NearDuplicates, data.Report.Validation.Pairs.Contradicting);
    }

    [Fact]
    public void A_published_file_is_reported_on()
    {
        var tokenizer = Tokenizer.Load(SharedData.Path("data", "models", "stories260K"));

        using var data = DataSets.Prepare(
            new() { Train = SharedData.Path("data", "preference", "dpo_en_demo.json"), MaxLength = 100_000 }, RowUse.Pairs, tokenizer, tokenizer.VocabularySize, seed: 1,
            progress: null, TestContext.Current.CancellationToken);

        Assert.Equal((300, 5), (data.Report.Train.Rows, data.Report.Train.Duplicates));
        Assert.Equal((0, 0), (data.Report.Train.Pairs!.NearDuplicates, data.Report.Train.Pairs.Contradicting));
    }

    private static string Rows(params (string Prompt, string Chosen, string Rejected)[] rows) => string.Concat(rows.Select(row =>
        System.Text.Json.JsonSerializer.Serialize(new { prompt = row.Prompt, chosen = row.Chosen, rejected = row.Rejected }) + "\n"));
}
