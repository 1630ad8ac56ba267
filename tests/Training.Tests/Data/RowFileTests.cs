using System.Text;
using TrainingService.Training.Data;

namespace TrainingService.Training.Tests.Data;

/// <summary>What the containers of rows accept, and where they say that a file is wrong.</summary>
public sealed class RowFileTests
{
    private const string TwoRows = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";

    [Theory]
    [InlineData("a.jsonl", TwoRows, "jsonl")]
    [InlineData("a", TwoRows, "jsonl")]
    [InlineData("a.json", TwoRows, "jsonl")]
    [InlineData("a.jsonl", "\uFEFF{\"text\": \"one\"}\r\n\r\n{\"text\": \"two\"}", "jsonl")]
    [InlineData("a.json", "\uFEFF [ {\"text\": \"o]n,e\\\"\"},\n {\"text\": \"two\"} ] \n", "json")]
    [InlineData("a.csv", "text,id\none,1\n\"t\"\"w,o\r\nthree\",2\r\n", "csv")]
    [InlineData("a.csv", "\uFEFFtext\none\n\ntwo", "csv")]
    [InlineData("file-abc", "id,text\n1,one\n2,two\n", "csv")]
    [InlineData("file-abc", "id\ttext\n1\tone\n2\ttwo\n", "tsv")]
    [InlineData("a.tsv", "text\none, and more\n[two]\n", "tsv")]
    public void Every_container_is_recognised_and_read_plain_or_compressed(string name, string text, string container)
    {
        using var plain = new TextFile(name, text);
        using var packed = new TextFile(name + ".gz", TextFile.Gzip(Encoding.UTF8.GetBytes(text)));

        var (report, packedReport) = (plain.Validate(), packed.Validate());

        Assert.Empty(report.Errors);
        Assert.Equal((container, "text", 2, 2), (report.Train.Container, report.Train.Layout, report.Train.Rows, report.Train.UsedRows));
        Assert.Empty(packedReport.Errors);
        Assert.Equal((container + ".gz", 2), (packedReport.Train.Container, packedReport.Train.UsedRows));
    }

    [Fact]
    public void Quoted_fields_keep_separators_quotes_and_line_breaks()
    {
        using var file = new TextFile("a.csv", "text\n\"a\"\"b,c\r\nd\"\n");

        var data = file.Prepare();

        // BOS, then a " b , c CR LF d, then EOS.
        Assert.Equal("a\"b,c\r\nd", new CharacterTokenizer().Decode(Assert.Single(data.Train).InputIds));
    }

    [Fact]
    public void A_malformed_line_is_named_by_row_and_column_and_the_others_are_read()
    {
        using var file = new TextFile("a.jsonl", "{\"text\": \"ok\"}\n\n{\"text\": \"é\" oops}\n{\"text\": \"ok\"}\n");

        var report = file.Validate();

        var error = Assert.Single(report.Errors);
        // The blank second line counts as a line; é is one character and two bytes: {"text": "é" is 12 characters, a blank, then the o.
        Assert.Equal(("train", 3, 14, "malformed_json"), (error.Split, error.Row, error.Column, error.Code));
        Assert.Equal("data.train:3", error.Param);
        Assert.Equal((3, 2), (report.Train.Rows, report.Train.UsedRows));
        Assert.False(report.IsUsable);
    }

    [Fact]
    public void A_malformed_line_stops_a_run_with_row_column_and_count()
    {
        using var file = new TextFile("a.jsonl", "{\"text\": \"ok\"}\n{\"text\": }\nnull\n");

        var error = Assert.Throws<TrainingException>(() => file.Prepare());

        Assert.Equal((FailureCode.InvalidData, "data.train:2"), (error.Code, error.Param));
        Assert.StartsWith("data.train row 2, column 10: not valid JSON: '}'", error.Message, StringComparison.Ordinal);
        Assert.EndsWith("(2 errors in all; the data report lists them)", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_malformed_element_of_an_array_is_named_by_row_line_and_column()
    {
        using var file = new TextFile("a.json", "[\n  {\"text\": \"ok\"},\n  {\"text\":\n    wrong},\n  {\"text\": \"ok\"}\n]");

        var report = file.Validate();

        var error = Assert.Single(report.Errors);
        Assert.Equal((2, 5), (error.Row, error.Column));
        Assert.Contains("line 4 of the file", error.Message, StringComparison.Ordinal);
        Assert.Equal(2, report.Train.UsedRows);
    }

    [Theory]
    [InlineData("a.json", "[{\"text\": \"ok\"}, {\"text\": \"ok\"}", null, "] is missing")]
    [InlineData("a.json", "[{\"text\": \"ok\"},", 2, "] is missing")]
    [InlineData("a.json", "[{\"text\": \"ok\"},]", 2, "not valid JSON")]
    [InlineData("a.json", "[{\"text\": \"ok\"}, {\"text\": \"ok", 2, "not valid JSON")]
    [InlineData("a.json", "[{\"text\": \"ok\"}] {}", null, "after the end of the array")]
    [InlineData("a.jsonl", "{\"text\": \"ok\"}\n[1]", 2, "must be a JSON object, found a list")]
    [InlineData("a.jsonl", "{\"text\": \"ok\"}\n{\"text\": \"a\", \"text\": \"b\"}", 2, "not valid JSON")]
    [InlineData("a.jsonl", "{\"text\": \"ok\"}\n{\"text\": 5}", 2, "text: must be a string, found 5")]
    [InlineData("a.jsonl", "{\"text\": \"ok\"}\n{\"text\": \"\\ud83d\"}", 2, "half of a character")]
    [InlineData("a.jsonl", "{\"text\": \"ok\"}\n{\"txt\": \"x\"}", 2, "'text' is missing")]
    [InlineData("a.csv", "text,id\nok,1\nwrong\n", 2, "1 fields and the header 2 (line 3")]
    [InlineData("a.csv", "text,id\nok,1\n\"open,2\nx,3\n", 2, "line 3 of the file is never closed")]
    [InlineData("a.csv", "text,id\nok,1\n\"a\"b,2\n", 2, "text follows a closing quote on line 3")]
    [InlineData("a.csv", "text,text\na,b\n", null, "names column 'text' twice")]
    [InlineData("a.txt", "just text", null, "plain text has no rows")]
    [InlineData("a.parquet", "PAR1....", null, "is a Parquet file")]
    public void A_broken_file_says_where_and_what(string name, string text, int? row, string message)
    {
        using var file = new TextFile(name, text);

        var report = file.Validate();

        Assert.Equal(row, Assert.Single(report.Errors).Row);
        Assert.Contains(message, $"{report.Errors[0].Field}: {report.Errors[0].Message}", StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a.jsonl", "{\"text\": \"ok\"}\n{\"text\": \"é?\"}\n", 12)]
    [InlineData("a.csv", "text\nok\né?\n", 2)]
    public void Bytes_that_are_not_UTF8_are_named(string name, string text, int column)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        bytes[Array.LastIndexOf(bytes, (byte)'?')] = 0xFF;
        using var file = new TextFile(name, bytes);

        var error = Assert.Single(file.Validate().Errors);

        // é is one character but two bytes.
        Assert.Equal((2, column, "invalid_utf8"), (error.Row, error.Column, error.Code));
        Assert.Contains($"byte {column + 1} of the row (0xFF)", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Compressed_data_that_is_cut_off_or_damaged_is_refused()
    {
        var random = string.Concat(Enumerable.Range(0, 20_000).Select(i => $"{{\"text\": \"{i * 7919 % 10007}\"}}\n"));
        var packed = TextFile.Gzip(Encoding.UTF8.GetBytes(random));
        using var cut = new TextFile("a.jsonl.gz", packed.AsSpan(0, packed.Length / 2));
        packed[packed.Length / 2] ^= 0xFF;
        using var damaged = new TextFile("a.jsonl.gz", packed);

        Assert.Contains(cut.Validate().Errors, error => error.Code is "damaged_gzip");
        // What a damaged stream yields is wrong in a hundred places; the cause is said first.
        Assert.Equal((null, "damaged_gzip"), (damaged.Validate().Errors[0].Row, damaged.Validate().Errors[0].Code));
    }

    [Fact]
    public void A_small_file_that_expands_without_end_is_refused()
    {
        var line = Encoding.UTF8.GetBytes("{\"text\": \"" + new string('a', 1_000_000) + "\"}\n");
        using var file = new TextFile("a.jsonl.gz", TextFile.Gzip([.. Enumerable.Repeat(line, 70).SelectMany(bytes => bytes)]));

        var error = Assert.Single(file.Validate().Errors);

        Assert.Equal((null, "gzip_bomb"), (error.Row, error.Code));
    }

    [Fact]
    public void A_row_that_does_not_end_is_refused()
    {
        using var file = new TextFile("a.jsonl", "{\"text\": \"ok\"}\n{\"text\": \"" + new string('a', 65 << 20));

        var error = Assert.Single(file.Validate().Errors);

        Assert.Equal((2, "row_too_large"), (error.Row, error.Code));
    }

    [Fact]
    public void A_missing_file_is_named()
    {
        var error = Assert.Throws<TrainingException>(() => DataSets.Validate(
            "/nowhere/rows.jsonl", cancellationToken: TestContext.Current.CancellationToken));

        Assert.Equal((FailureCode.InvalidData, "data.train"), (error.Code, error.Param));
        Assert.Contains("rows.jsonl", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Only_the_first_hundred_errors_are_kept_and_all_are_counted()
    {
        using var file = new TextFile("a.jsonl", "{\"text\": \"ok\"}\n" + string.Concat(Enumerable.Repeat("{]\n", 130)));

        var report = file.Validate();

        Assert.Equal((130, 100), (report.ErrorCount, report.Errors.Count));
    }
}
