using TrainingService.Training.Data;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Data;

/// <summary>Every published form of a judged answer, as the sequences that are scored.</summary>
public class PreferenceDataTests
{
    // Each form says the same thing, so each gives the same two answers.
    [Theory]
    [InlineData("prompt_preference", """{"prompt": "Q", "chosen": "good", "rejected": "bad"}""", "Qgood", "Qbad")]
    [InlineData("prompt_responses", """{"prompt": "Q", "chosen_response": "good", "rejected_response": "bad"}""", "Qgood", "Qbad")]
    [InlineData("implicit_preference", """{"chosen": "\n\nHuman: Q\n\nAssistant: good", "rejected": "\n\nHuman: Q\n\nAssistant: bad"}""", "\n\nHuman: Q\n\nAssistant: good", "\n\nHuman: Q\n\nAssistant: bad")]
    [InlineData("ranked_answers", """{"prompt": "Q", "answers": [{"answer": "bad", "rank": 2}, {"answer": "good", "rank": 1}]}""", "Qgood", "Qbad")]
    [InlineData("prompt_preference", """{"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "good"}], "rejected": [{"role": "assistant", "content": "bad"}]}""", "User: Q\nAssistant: good", "User: Q\nAssistant: bad")]
    [InlineData("prompt_preference", """{"prompt": "Q", "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "good"}], "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "bad"}]}""", "User: Q\nAssistant: good", "User: Q\nAssistant: bad")]
    [InlineData("implicit_preference", """{"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "good"}], "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "bad"}]}""", "User: Q\nAssistant: good", "User: Q\nAssistant: bad")]
    [InlineData("messages_preference", """{"messages": [{"role": "user", "content": "Q"}], "chosen": {"role": "assistant", "content": "good"}, "rejected": {"role": "assistant", "content": "bad"}}""", "User: Q\nAssistant: good", "User: Q\nAssistant: bad")]
    [InlineData("sharegpt_preference", """{"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}}""", "User: Q\nAssistant: good", "User: Q\nAssistant: bad")]
    [InlineData("openai_preference", """{"input": {"messages": [{"role": "user", "content": "Q"}]}, "preferred_output": [{"role": "assistant", "content": "good"}], "non_preferred_output": [{"role": "assistant", "content": "bad"}]}""", "User: Q\nAssistant: good", "User: Q\nAssistant: bad")]
    public void Pairs(string layout, string row, string chosen, string rejected)
    {
        using var file = new TextFile("rows.jsonl", row + "\n");

        using var data = file.Prepare(use: RowUse.Pairs);

        var example = Assert.Single(data.Train);
        Assert.Equal(layout, data.Report.Train.Layout);
        Assert.Equal([chosen, rejected], Parts(example).Select(part => Text(part.Ids)));
        Assert.All(Parts(example), part => Assert.Contains(Text([.. part.Ids.Where((_, at) => part.Labels[at] != Example.Ignored)]).Trim(), (string[])["good", "bad"]));
    }

    [Theory]
    [InlineData("alpaca_preference", """{"instruction": "Q", "chosen": "good", "rejected": "bad"}""")]
    [InlineData("question_preference", """{"question": "Q", "chosen": "good", "rejected": "bad"}""")]
    [InlineData("input_preference", """{"input": "Q", "chosen": "good", "rejected": "bad", "system": "S"}""")]
    [InlineData("instruction_responses", """{"instruction": "Q", "chosen_response": "good", "rejected_response": "bad"}""")]
    [InlineData("labelled_outputs", """{"input": "Q", "output_1": "bad", "output_2": "good", "label": 2}""")]
    public void Tasks(string layout, string row)
    {
        using var file = new TextFile("rows.jsonl", row + "\n");

        using var data = file.Prepare(use: RowUse.Pairs);

        var parts = Parts(Assert.Single(data.Train));
        Assert.Equal(layout, data.Report.Train.Layout);
        Assert.EndsWith("### Instruction:\nQ\n\n### Response:\ngood", Text(parts[0].Ids), StringComparison.Ordinal);
        Assert.EndsWith("### Instruction:\nQ\n\n### Response:\nbad", Text(parts[1].Ids), StringComparison.Ordinal);
    }

    [Fact]
    public void Margin_category_and_order_are_kept_and_come_back_from_the_disk()
    {
        using var file = new TextFile("rows.jsonl",
            """{"prompt": "Q", "chosen": "good", "rejected": "bad", "margin": 0.75, "category": "chät"}""" + "\n"
            + """{"prompt": "Q", "chosen": "better", "rejected": "worse", "margin": null, "subset": "code"}""" + "\n");

        using var data = file.Prepare(use: RowUse.Pairs);

        Assert.Equal([0.75f, null], data.Train.Select(example => example.Value));
        Assert.Equal(["chät", "code"], data.Train.Select(example => example.Category));
        Assert.Equal([1, 2], data.Train.Select(example => example.Row));
        var plan = BatchPlan.ForTraining(data.Train, new() { Train = "" }, RowUse.Pairs, batchSize: 2, padId: 0, seed: 1);
        var batch = plan.Collate(plan.ForEpoch(0)[0]);
        Assert.Equal(4, batch.Size);
        Assert.Null(batch.Segments);
        Assert.Equal(batch.Examples.SelectMany(example => new[] { example.Ends![0] }).Concat(batch.Examples.Select(example => example.Ends![1] - example.Ends[0])), batch.Lengths);
    }

    [Fact]
    public void Long_and_equal_answers_are_left_out_and_counted()
    {
        var lines = Enumerable.Range(0, 12).Select(i => $$"""{"prompt": "Q{{i}}", "chosen": "rather good", "rejected": "bad"}""").ToList();
        lines.Add("""{"prompt": "Q", "chosen": "same", "rejected": "same"}""");
        lines.Add($$"""{"prompt": "Q", "chosen": "{{new string('x', 200)}}", "rejected": "short"}""");
        using var file = new TextFile("rows.jsonl", string.Join('\n', lines) + "\n");

        using var data = file.Prepare(new DataConfig { Train = "", MaxLength = 50 }, use: RowUse.Pairs);

        Assert.Equal(12, data.Train.Count);
        Assert.Equal(12, data.Report.Train.UsedRows);
        Assert.Equal(new PairFigures(ChosenLonger: 13, ChosenShorter: 0, SameAnswers: 1, TooLong: 1), data.Report.Train.Pairs! with { Patterns = [] });
        Assert.Contains(data.Report.Warnings, warning => warning.Contains("longer answer is the chosen one in 100 %", StringComparison.Ordinal));
        Assert.Contains(data.Report.Warnings, warning => warning.Contains("two equal answers", StringComparison.Ordinal));
        Assert.Contains(data.Report.Warnings, warning => warning.Contains("longer than max_length 50", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("""{"prompt": "Q", "completion": "fine", "label": true}""", new[] { 1f })]
    [InlineData("""{"instruction": "Q", "output": "fine", "kto_tag": false}""", new[] { 0f })]
    [InlineData("""{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "fine"}], "kto_tag": true}""", new[] { 1f })]
    [InlineData("""{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "fine"}], "label": false}""", new[] { 0f })]
    [InlineData("""{"prompt": "Q", "chosen": "fine", "rejected": "bad"}""", new[] { 1f, 0f })]
    public void Verdicts(string row, float[] values)
    {
        using var file = new TextFile("rows.jsonl", row + "\n");

        using var data = file.Prepare(use: RowUse.Verdicts);

        Assert.Equal(values.Cast<float?>(), data.Train.Select(example => example.Value));
        Assert.All(data.Train, example => Assert.Null(example.Ends));
    }

    [Theory]
    [InlineData("""{"prompt": "Q", "completion": "fine", "score": 3.5}""", new[] { 3.5f })]
    [InlineData("""{"text": "fine", "label": 1}""", new[] { 1f })]
    [InlineData("""{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "fine"}], "reward": -1}""", new[] { -1f })]
    [InlineData("""{"prompt": "Q", "completions": ["one", "two"], "labels": [true, false]}""", new[] { 1f, 0f })]
    public void Scores(string row, float[] values)
    {
        using var file = new TextFile("rows.jsonl", row + "\n");

        using var data = file.Prepare(use: RowUse.Scores);

        Assert.Equal(values.Cast<float?>(), data.Train.Select(example => example.Value));
    }

    [Theory]
    [InlineData(RowUse.Pairs, """{"prompt": "Q", "chosen": "good", "rejected": ""}""", "no trainable token")]
    [InlineData(RowUse.Pairs, """{"prompt": "Q", "chosen": "good", "rejected": "bad", "margin": "much"}""", "row 1, margin: must be a number, found a string")]
    [InlineData(RowUse.Pairs, """{"prompt": "Q", "chosen": "good", "rejected": ["bad"]}""", "must be a string, found a list")]
    [InlineData(RowUse.Pairs, """{"prompt": "Q", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 1}]}""", "two answers of different rank")]
    [InlineData(RowUse.Pairs, """{"chosen": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "x"}], "rejected": [{"role": "user", "content": "B"}, {"role": "assistant", "content": "y"}]}""", "begin with different messages")]
    [InlineData(RowUse.Pairs, """{"messages": [{"role": "user", "content": "Q"}], "chosen": {"role": "user", "content": "good"}, "rejected": {"role": "assistant", "content": "bad"}}""", "must end with a message of the assistant")]
    [InlineData(RowUse.Pairs, """{"prompt": "Q", "completion": "good"}""", "fit no layout; the nearest is")]
    [InlineData(RowUse.Verdicts, """{"prompt": "Q", "completion": "fine", "label": 2}""", "row 1, label: must be true or false, found 2")]
    [InlineData(RowUse.Scores, """{"prompt": "Q", "completion": "fine", "score": null}""", "'score' is missing or null")]
    [InlineData(RowUse.Answers, """{"prompt": "Q", "chosen": "good", "rejected": "bad"}""", "use reward or dpo")]
    public void What_cannot_be_judged_is_named(RowUse use, string row, string message)
    {
        using var file = new TextFile("rows.jsonl", row + "\n");

        var failure = Assert.Throws<TrainingException>(() => { file.Prepare(use: use).Dispose(); });

        Assert.Contains(message, failure.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("hh-rlhf/harmless-base-test.jsonl.gz", RowUse.Pairs)]
    [InlineData("dpo_en_demo.json", RowUse.Pairs)]
    [InlineData("kto_en_demo.json", RowUse.Verdicts)]
    [InlineData("llmbar/Natural.json", RowUse.Pairs)]
    public void Published_files_are_read_without_an_error(string name, RowUse use)
    {
        var path = SharedData.Path("data", "preference", name);
        var tokenizer = Tokenizer.Load(SharedData.Path("data", "models", "stories260K"));

        using var data = DataSets.Prepare(
            new() { Train = path, MaxLength = 100_000 }, use, tokenizer, tokenizer.VocabularySize, seed: 1, progress: null, TestContext.Current.CancellationToken);

        Assert.True(data.Train.Count > 50);
        Assert.True(data.Report.Train.UsedRows + (data.Report.Train.Pairs?.SameAnswers ?? 0) == data.Report.Train.Rows);
    }

    private static List<(int[] Ids, int[] Labels)> Parts(Example example) =>
        [.. example.Ends!.Select((end, part) => (part == 0 ? 0 : example.Ends![part - 1])..end).Select(range => (example.InputIds[range], example.Labels[range]))];

    private static string Text(int[] ids) => new CharacterTokenizer().Decode(ids, skipSpecialTokens: true);
}
