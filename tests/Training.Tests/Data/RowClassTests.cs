using TrainingService.Training.Data;

namespace TrainingService.Training.Tests.Data;

/// <summary>Rows that name a class, for adapters that ask for one.</summary>
public sealed class RowClassTests
{
    private static readonly DataConfig Asking = new() { Train = "", Classes = ["red", "blue", "3"] };

    [Fact]
    public void A_row_has_the_class_that_it_names()
    {
        using var file = new TextFile("a.jsonl", """
            {"prompt": "p", "completion": "c", "class": "blue"}
            {"prompt": "p", "completion": "d", "class": "red"}
            {"prompt": "p", "completion": "d", "class": 3}
            """);

        using var data = file.Prepare(Asking);
        using var indifferent = file.Prepare();

        Assert.Equal([1, 0, 2], data.Train.Select(example => example.Class));
        Assert.Empty(data.Report.Train.IgnoredColumns);
        Assert.Equal(0, data.Report.Train.Duplicates);   // the same text in two classes
        Assert.All(indifferent.Train, example => Assert.Null(example.Class));
        Assert.Equal(["class"], indifferent.Report.Train.IgnoredColumns);
        Assert.Equal(1, indifferent.Report.Train.Duplicates);
        Assert.NotEqual(indifferent.Content, data.Content);   // a run of other classes is another run
    }

    [Theory]
    [InlineData("tokens.jsonl", """{"input_ids": [5, 6, 7], "labels": [-100, 9, 7], "class": "blue"}""")]
    [InlineData("table.csv", "kind,prompt,completion\nblue,p,c")]
    public void Every_layout_and_container_may_carry_one(string name, string rows)
    {
        using var file = new TextFile(name, rows);

        using var data = file.Prepare(Asking with { Columns = name.EndsWith("csv", StringComparison.Ordinal) ? new Dictionary<string, string> { ["kind"] = "class" } : Asking.Columns });

        Assert.Equal(1, Assert.Single(data.Train).Class);
    }

    [Theory]
    [InlineData("""{"text": "t"}""", "missing_class", "'red', 'blue', '3'")]
    [InlineData("""{"text": "t", "class": null}""", "missing_class", "data.columns")]
    [InlineData("""{"text": "t", "class": "green"}""", "unknown_class", "is 'green', which is none of adapter.classes ('red', 'blue', '3')")]
    [InlineData("""{"text": "t", "class": ["red"]}""", "wrong_type", "found a list")]
    public void A_row_without_one_is_named_with_the_fix(string row, string code, string words)
    {
        using var file = new TextFile("a.jsonl", """{"text": "t", "class": "red"}""" + "\n" + row);

        var error = Assert.Single(file.Validate(Asking).Errors);

        Assert.Equal((2, "class", code, "data.train:2"), (error.Row, error.Field, error.Code, error.Param));
        Assert.Contains(words, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Each_token_of_a_batch_knows_its_class()
    {
        Example[] rows = [Row(2, 1), Row(3, 0), Row(1, 1)];
        var packed = new BatchPlan(rows, batchSize: 2, padId: 0, packTo: 5, shuffleSeed: null);
        var plain = new BatchPlan([.. rows.Select(row => new Example(row.InputIds, row.Labels, row.Row))], batchSize: 2, padId: 0, packTo: 5, shuffleSeed: null);

        Assert.Equal([1, 1, 0, 0, 0, 1, -1, -1, -1, -1], packed.Collate(packed.ForEpoch(0)[0]).Classes!);
        Assert.Null(plain.Collate(plain.ForEpoch(0)[0]).Classes);

        static Example Row(int length, int number) => new([.. Enumerable.Range(3, length)], [.. Enumerable.Range(3, length)], 1) { Class = number };
    }
}
