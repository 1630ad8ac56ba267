using System.Text.Json;
using TrainingService.Training.Data;

namespace TrainingService.Training.Tests.Data;

/// <summary>What becomes of the rows of a run, and what its report says.</summary>
public sealed class DataSetsTests
{
    [Fact]
    public void The_report_counts_rows_and_tokens()
    {
        // With BOS and EOS: 3, 4, 5 and 12 tokens. Nothing predicts BOS, so one less carries loss.
        using var file = new TextFile("a.jsonl", Lines("a", "ab", "abc", "abcdefghij"));

        var report = file.Prepare().Report;

        Assert.Equal((4, 4, 4), (report.Train.Rows, report.Train.UsedRows, report.Train.Examples));
        Assert.Equal(new TokenStatistics(Min: 3, Median: 4, P95: 12, Max: 12, Total: 24), report.Train.Tokens);
        Assert.Equal(20, report.Train.TrainableTokens);
        Assert.Null(report.Validation);
        Assert.Contains(report.Warnings, warning => warning.StartsWith("Only 4 rows", StringComparison.Ordinal));
    }

    [Fact]
    public void The_report_shows_the_first_rows_as_the_model_sees_them()
    {
        using var file = new TextFile("a.jsonl", string.Concat(Enumerable.Repeat("{\"prompt\": \"a\", \"completion\": \"b\"}\n", 7)));

        var previews = file.Prepare().Report.Preview;

        Assert.Equal(5, previews.Count);
        Assert.Equal((1, "<s>ab</s>"), (previews[0].Row, previews[0].Text));
        Assert.Equal([1, 'a' + 3, 'b' + 3, 2], previews[0].InputIds);
        Assert.Equal([0, 0, 1, 1], previews[0].Mask);
    }

    [Fact]
    public void The_report_is_a_snake_case_document()
    {
        using var file = new TextFile("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \n");

        var json = JsonSerializer.SerializeToElement(file.Validate(), SpecJson.Options);

        Assert.Equal(1, json.GetProperty("error_count").GetInt32());
        Assert.Equal("malformed_json", json.GetProperty("errors")[0].GetProperty("code").GetString());
        Assert.Equal("data.train:2", json.GetProperty("errors")[0].GetProperty("param").GetString());
        Assert.Equal("text", json.GetProperty("train").GetProperty("layout").GetString());
        Assert.False(json.GetProperty("is_usable").GetBoolean());
    }

    [Fact]
    public void Long_rows_are_cut_at_the_end_and_those_left_without_loss_are_dropped()
    {
        // BOS + prompt + completion + EOS: 4 tokens; 3 + 1 + 5 = 9, cut to 6; 1 + 8 + 1 + 1 = 11, of which the first 6 are all prompt.
        using var file = new TextFile("a.jsonl", """
            {"prompt": "a", "completion": "b"}
            {"prompt": "aaa", "completion": "bbbb"}
            {"prompt": "aaaaaaaa", "completion": "b"}
            """);

        var data = file.Prepare(new() { Train = "", MaxLength = 6 });

        Assert.Equal([4, 6], data.Train.Select(example => example.InputIds.Length));
        Assert.Equal([1, 2], data.Train.Select(example => example.Row));
        Assert.Equal((3, 2, 2, 1), (data.Report.Train.Rows, data.Report.Train.UsedRows, data.Report.Train.TruncatedRows,
            data.Report.Train.RowsWithoutTrainableTokens));
        Assert.Contains("2 rows are longer than max_length 6 and lost their end.", data.Report.Warnings);
        Assert.Contains("1 of them had nothing to train on before that point and are left out.", data.Report.Warnings);
    }

    [Fact]
    public void Pretraining_keeps_all_of_a_long_text_in_several_sequences()
    {
        // BOS + 10 + EOS = 12 tokens in parts of 5, 5 and 2; BOS + 3 + EOS = 5 tokens stay whole; 6 tokens leave a last part of one token,
        // which nothing predicts.
        using var file = new TextFile("a.jsonl", Lines("abcdefghij", "abc", "abcd"));

        var data = file.Prepare(new() { Train = "", MaxLength = 5 }, use: RowUse.Text);

        Assert.Equal([5, 5, 2, 5, 5], data.Train.Select(example => example.InputIds.Length));
        Assert.Equal([1, 1, 1, 2, 3], data.Train.Select(example => example.Row));
        Assert.Equal("<s>abcdefghij</s>", new CharacterTokenizer().Decode(
            data.Train.Where(example => example.Row == 1).SelectMany(example => example.InputIds), skipSpecialTokens: false));
        Assert.Equal((3, 5, 1, 0), (data.Report.Train.UsedRows, data.Report.Train.Examples, data.Report.Train.ChunkedRows,
            data.Report.Train.TruncatedRows));
    }

    [Fact]
    public void Plain_text_is_truncated_in_fine_tuning()
    {
        using var file = new TextFile("a.jsonl", Lines("abcdefghij"));

        Assert.Equal("<s>abcd", Text(Assert.Single(file.Prepare(new() { Train = "", MaxLength = 5 }).Train)));
    }

    [Fact]
    public void A_row_without_trainable_tokens_stops_a_run()
    {
        using var file = new TextFile("a.jsonl", """
            {"prompt": "a", "completion": "b"}
            {"prompt": "a", "completion": ""}
            """);

        var error = Assert.Throws<TrainingException>(() => file.Prepare());

        Assert.Equal((FailureCode.InvalidData, "data.train:2"), (error.Code, error.Param));
        Assert.Contains("row 2, completion: the row has no trainable token", error.Message, StringComparison.Ordinal);
        Assert.Equal(1, file.Validate().Train.RowsWithoutTrainableTokens);
    }

    [Theory]
    [InlineData("a.jsonl", "", "the file holds no rows")]
    [InlineData("a.jsonl", "\n\n", "the file holds no rows")]
    [InlineData("a.json", "[]", "the file holds no rows")]
    [InlineData("a.csv", "text\n", "the file holds no rows")]
    [InlineData("a.jsonl", "{\"prompt\": \"aaaaaaaaaa\", \"completion\": \"b\"}", "none of its 1 rows has a trainable token within max_length")]
    public void A_file_without_a_usable_row_stops_a_run(string name, string text, string why)
    {
        using var file = new TextFile(name, text);

        var error = Assert.Throws<TrainingException>(() => file.Prepare(new() { Train = "", MaxLength = 5 }));

        Assert.Equal((FailureCode.InvalidData, "data.train", $"data.train has no usable row: {why}."), (error.Code, error.Param, error.Message));
    }

    [Fact]
    public void A_tokenizer_with_more_ids_than_the_model_is_refused_and_a_smaller_one_is_fine()
    {
        using var file = new TextFile("a.jsonl", Lines("a"));

        var error = Assert.Throws<TrainingException>(() => file.Prepare(tokenizer: new CharacterTokenizer(vocabulary: 300), vocabulary: 256));

        Assert.Equal((FailureCode.InvalidData, "model"), (error.Code, error.Param));
        Assert.Contains("300 ids but the model's vocabulary only 256", error.Message, StringComparison.Ordinal);
        Assert.Single(file.Prepare(tokenizer: new CharacterTokenizer(vocabulary: 200), vocabulary: 256).Train);
    }

    [Fact]
    public void Text_without_a_tokenizer_can_be_checked_but_not_trained_on()
    {
        using var file = new TextFile("a.jsonl", Lines("a", "b"));

        var report = file.Validate();
        var error = Assert.Throws<TrainingException>(() => DataSets.Prepare(
            new() { Train = file.Path }, RowUse.Answers, tokenizer: null, 256, 1, progress: null, TestContext.Current.CancellationToken));

        Assert.Equal((2, null), (report.Train.UsedRows, report.Train.Tokens));
        Assert.True(report.IsUsable);
        Assert.Contains("has no tokenizer", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_share_of_the_rows_is_set_aside_by_the_seed()
    {
        using var file = new TextFile("a.jsonl", Lines([.. Enumerable.Range(0, 40).Select(i => $"row {i}")]));
        var config = new DataConfig { Train = "", ValidationSplit = 0.25 };

        var (data, again, other) = (file.Prepare(config), file.Prepare(config), file.Prepare(config, seed: 2));

        Assert.Equal((30, 10), (data.Train.Count, data.Validation.Count));
        Assert.Equal((30, 10), (data.Report.Train.Rows, data.Report.Validation!.Rows));
        Assert.Equal(Enumerable.Range(1, 40), data.Train.Concat(data.Validation).Select(example => example.Row).Order());
        Assert.Equal(data.Validation.Select(example => example.Row).Order(), data.Validation.Select(example => example.Row));
        Assert.Equal(data.Validation.Select(example => example.Row), again.Validation.Select(example => example.Row));
        Assert.NotEqual(data.Validation.Select(example => example.Row), other.Validation.Select(example => example.Row));
    }

    [Fact]
    public void Repeated_and_shared_rows_are_counted_and_kept()
    {
        using var train = new TextFile("a.jsonl", "{\"text\": \"x\", \"id\": 1}\n{\"text\": \"x\", \"id\": 2}\n{\"text\": \"y\"}\n");
        using var validation = new TextFile("b.jsonl", "{\"text\": \"x\"}\n{\"text\": \"z\"}\n");

        var data = train.Prepare(new() { Train = "", Validation = validation.Path });

        Assert.Equal((3, 2), (data.Train.Count, data.Validation.Count));
        Assert.Equal((1, 0, 1), (data.Report.Train.Duplicates, data.Report.Validation!.Duplicates, data.Report.OverlappingRows));
        Assert.Equal(["id"], data.Report.Train.IgnoredColumns);
    }

    [Fact]
    public void Errors_of_the_validation_file_name_it()
    {
        using var train = new TextFile("a.jsonl", Lines("x"));
        using var validation = new TextFile("b.jsonl", Lines("x") + "{]");
        using var empty = new TextFile("b.jsonl", "");

        var broken = Assert.Throws<TrainingException>(() => train.Prepare(new() { Train = "", Validation = validation.Path }));
        var useless = Assert.Throws<TrainingException>(() => train.Prepare(new() { Train = "", Validation = empty.Path }));
        var absent = Assert.Throws<TrainingException>(() => train.Prepare(new() { Train = "", Validation = "/nowhere/b.jsonl" }));

        Assert.Equal(("data.validation:2", "data.validation", "data.validation"), (broken.Param, useless.Param, absent.Param));
    }

    [Fact]
    public void Odd_conversations_are_counted_and_kept()
    {
        using var file = new TextFile("a.jsonl", """
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
            {"messages": [{"role": "user", "content": "q"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
            {"messages": [{"role": "user", "content": "q"}, {"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]}
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": null, "tool_calls": []}, {"role": "tool", "content": "t"}, {"role": "assistant", "content": "a"}]}
            """);

        var report = file.Prepare().Report;

        Assert.Equal((4, 1, 2), (report.Train.UsedRows, report.Train.EmptyAssistantTurns, report.Train.RoleOrderBreaks));
        Assert.Contains(report.Warnings, warning => warning.Contains("no chat template", StringComparison.Ordinal));
    }

    [Fact]
    public void Shifted_labels_are_noticed()
    {
        using var file = new TextFile("a.jsonl", """{"input_ids": [5, 6, 7], "labels": [6, 7, -100]}""");

        Assert.Contains(file.Prepare().Report.Warnings, warning => warning.StartsWith("1 rows have labels that differ", StringComparison.Ordinal));
    }

    [Fact]
    public void A_border_between_prompt_and_completion_is_where_inference_puts_it()
    {
        using var file = new TextFile("a.jsonl", """{"prompt": "xa", "completion": "by"}""");

        // a and b merge where they meet. At inference the prompt stands alone, so its last token is the a.
        var merged = file.Prepare(tokenizer: new CharacterTokenizer(merges: ["ab"]));
        // The space in front of every text stands in front of the prompt alone.
        var spaced = file.Prepare(tokenizer: new CharacterTokenizer(merges: ["ab"], prependsSpace: true));

        Assert.Equal([1, 'x' + 3, 'a' + 3, 'b' + 3, 'y' + 3, 2], Assert.Single(merged.Train).InputIds);
        Assert.Equal([1, ' ' + 3, 'x' + 3, 'a' + 3, 'b' + 3, 'y' + 3, 2], Assert.Single(spaced.Train).InputIds);
        Assert.Equal([-100, -100, -100, -100, 'b' + 3, 'y' + 3, 2], Assert.Single(spaced.Train).Labels);
    }

    [Fact]
    public void Tokens_around_a_text_are_those_that_the_tokenizer_asks_for()
    {
        using var file = new TextFile("a.jsonl", """{"prompt": "a", "completion": "b</s>"}""");

        Assert.Equal("ab</s>", Text(Assert.Single(file.Prepare(tokenizer: new CharacterTokenizer(addsBos: false)).Train)));
        Assert.Equal("<s>ab</s>", Text(Assert.Single(file.Prepare(tokenizer: new CharacterTokenizer(hasEos: false)).Train)));
    }

    [Fact]
    public void A_cancelled_reading_ends_as_cancelled()
    {
        using var file = new TextFile("a.jsonl", Lines([.. Enumerable.Repeat("x", 50)]));

        Assert.Throws<OperationCanceledException>(() => DataSets.Prepare(
            new() { Train = file.Path }, RowUse.Answers, new CharacterTokenizer(), 256, 1, progress: null, new CancellationToken(canceled: true)));
    }

    private static string Lines(params string[] texts) => string.Concat(texts.Select(text => $"{{\"text\": \"{text}\"}}\n"));

    private static string Text(Example example) => new CharacterTokenizer().Decode(example.InputIds, skipSpecialTokens: false);
}
