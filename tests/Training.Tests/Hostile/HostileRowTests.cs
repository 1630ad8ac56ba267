using System.Text;
using TrainingService.Training.Data;
using TrainingService.Training.Tests.Data;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>Rows that would fill the memory, or that are no text: each is named by its number, and what is behind it is read where it can be.</summary>
public class HostileRowTests
{
    private const int Mebibyte = 1 << 20;

    public static TheoryData<string, string, string, int?, string> Large => new()
    {
        { "ten million keys", "a.jsonl", Repeated("{", i => $"\"k{i}\":1,", "\"z\":1}", 10_000_000), 1, "row_too_large" },
        { "a million keys", "a.jsonl", Repeated("{", i => $"\"k{i}\":1,", "\"z\":1}", 900_000), 1, "too_many_columns" },
        { "ten million values", "a.jsonl", Repeated("{\"input_ids\":[", _ => "1,", "1]}", 7_000_000), 1, "row_too_large" },
        { "ten million columns", "a.csv", Repeated("", _ => ",", "\nb\n", 10_000_000), null, "too_many_columns" },
        { "ten million cells", "a.csv", Repeated("text\nx", _ => ",", "\nb\n", 10_000_000), 1, "too_many_columns" },
        { "a long name", "a.jsonl", "{\"" + new string('n', 8 * Mebibyte) + "\":1}", 1, "column_name_too_long" },
        { "a long header", "a.csv", new string('n', 8 * Mebibyte) + "\nb\n", null, "column_name_too_long" },
        { "a name twice", "a.jsonl", "{\"" + new string('n', 100_000) + "\":1,\"" + new string('n', 100_000) + "\":1}", 1, "malformed_json" },
        { "ten million levels", "a.jsonl", new string('[', 10_000_000), 1, "malformed_json" },
        { "ten million levels in a column", "a.jsonl", "{\"text\":" + new string('[', 10_000_000), 1, "malformed_json" },
        { "ten million levels in an array", "a.json", "[" + new string('[', 10_000_000), 1, "malformed_json" },
        { "ten million levels in a cell", "a.csv", "input_ids\n" + new string('[', 10_000_000) + "\n", 1, "malformed_json" },
        { "a row beyond the limit", "a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"" + new string('a', 17 * Mebibyte) + "\"}", 2, "row_too_large" },
        { "an element beyond the limit", "a.json", "[{\"text\":\"a\"},{\"text\":\"" + new string('a', 17 * Mebibyte) + "\"}]", 2, "row_too_large" },
        { "a cell beyond the limit", "a.csv", "text\na\n\"" + new string('a', 17 * Mebibyte), 2, "row_too_large" },
    };

    [Theory]
    [MemberData(nameof(Large))]
    public void Large_rows_are_refused_in_bounded_memory(string what, string name, string text, int? row, string code)
    {
        Assert.NotEmpty(what);
        using var file = new TextFile(name, text);
        var before = GC.GetAllocatedBytesForCurrentThread();

        var report = file.Validate();

        var error = report.Errors[0];
        Assert.Equal((row, code), (error.Row, error.Code));
        Assert.InRange(error.Message.Length, 10, 1001);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 400L * Mebibyte);
    }

    [Fact]
    public void A_large_row_is_as_large_when_it_comes_compressed()
    {
        var text = "{\"text\":\"a\"}\n{\"text\":\"" + new string('a', 17 * Mebibyte) + "\"}";
        using var file = new TextFile("a.jsonl.gz", TextFile.Gzip(Encoding.UTF8.GetBytes(text)));

        Assert.Equal((2, "row_too_large"), (file.Validate().Errors[0].Row, file.Validate().Errors[0].Code));
    }

    [Fact]
    public void Rows_behind_one_with_too_many_cells_are_read()
    {
        using var file = new TextFile("a.csv", "text\na\n" + new string(',', 20_000) + "\nb\n");

        var report = file.Validate();

        Assert.Equal((2, "too_many_columns"), (Assert.Single(report.Errors).Row, report.Errors[0].Code));
        Assert.Equal((3, 2), (report.Train.Rows, report.Train.UsedRows));
    }

    /// <summary>Twenty rows are looked at before the layout is decided; long ones must not all be held.</summary>
    [Fact]
    public void Long_rows_are_not_gathered_before_the_layout_is_known()
    {
        var row = "{\"text\":\"" + new string('a', 15 * Mebibyte) + "\"}\n";
        using var file = new TextFile("a.jsonl.gz", TextFile.Gzip(Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat(row, 4)))));

        Assert.Equal(4, file.Validate().Train.UsedRows);
    }

    [Fact]
    public void A_small_file_that_expands_without_end_is_stopped()
    {
        using var file = new TextFile("a.jsonl.gz", TextFile.Gzip(Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat(new string(' ', Mebibyte - 1) + "\n", 80)))));

        Assert.Equal("gzip_bomb", Assert.Single(file.Validate().Errors).Code);
    }

    /// <summary>What is compressed twice is not opened twice.</summary>
    [Fact]
    public void Gzip_within_gzip_is_no_text()
    {
        using var file = new TextFile("a.jsonl.gz", TextFile.Gzip(TextFile.Gzip("{\"text\":\"a\"}"u8.ToArray())));

        Assert.Contains(Assert.Single(file.Validate().Errors).Code, new[] { "invalid_utf8", "unknown_container", "malformed_json" });
    }

    [Theory]
    [InlineData(new byte[] { 0xFF, 0xFE, 0x7B, 0x00 }, "UTF-16")]
    [InlineData(new byte[] { 0xFE, 0xFF, 0x00, 0x7B }, "UTF-16")]
    public void Other_encodings_are_named(byte[] head, string says)
    {
        using var file = new TextFile("a.jsonl", head);

        Assert.Contains(says, Assert.Single(file.Validate().Errors).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"text\":\"\\ud800\"}", "invalid_text")]
    [InlineData("{\"\\ud800\":\"a\",\"text\":\"a\"}", "invalid_text")]
    [InlineData("{\"instruction\":\"a\",\"input\":\"\\udc00\",\"output\":\"b\"}", "invalid_text")]
    [InlineData("{\"messages\":[{\"role\":\"\\ud800\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}", "invalid_text")]
    [InlineData("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"\\ud800\"}}]}]}", "invalid_text")]
    [InlineData("{\"text\":\"a\u0001\"}", "malformed_json")]
    [InlineData("{\"input_ids\":[1,2,1e400]}", "wrong_type")]
    [InlineData("{\"input_ids\":[1,2,9223372036854775808]}", "wrong_type")]
    [InlineData("{\"input_ids\":[1,2,NaN]}", "malformed_json")]
    [InlineData("{\"input_ids\":[1,2,-1]}", "token_out_of_vocabulary")]
    public void What_is_no_text_and_no_number_is_named(string row, string code)
    {
        using var file = new TextFile("a.jsonl", row);

        var report = file.Validate(tokenizer: new CharacterTokenizer(), vocabulary: 256);

        Assert.Equal((1, code), (report.Errors[0].Row, report.Errors[0].Code));
    }

    [Fact]
    public void An_empty_object_has_no_layout()
    {
        using var file = new TextFile("a.jsonl", "{}\n{}\n");

        Assert.Equal("no_columns", file.Validate().Errors[0].Code);
    }

    /// <summary>The layout is decided by the first rows; when none of them can be read, by the first that can.</summary>
    [Fact]
    public void Good_rows_behind_a_thousand_bad_ones_are_read()
    {
        using var file = new TextFile("a.jsonl", string.Concat(Enumerable.Repeat("oops\n", 1100)) + "{\"text\":\"a\"}\n");

        var report = file.Validate();

        Assert.Equal((1100, 1), (report.ErrorCount, report.Train.UsedRows));
    }

    [Fact]
    public void Line_ends_may_be_mixed_and_texts_may_hold_nul()
    {
        using var file = new TextFile("a.jsonl", "{\"text\":\"a\\u0000b\"}\r\n\r\n{\"text\":\"b\"}\n\n{\"text\":\"\\uD83D\\uDCA5\"}\r\n");

        var report = file.Validate();

        Assert.Empty(report.Errors);
        Assert.Equal(3, report.Train.UsedRows);
    }

    [Theory]
    [InlineData(new byte[] { 0xC3, 0x28 })]
    [InlineData(new byte[] { 0xED, 0xA0, 0x80 })]
    [InlineData(new byte[] { 0xF8, 0x88, 0x80, 0x80, 0x80 })]
    [InlineData(new byte[] { 0xC0, 0xAF })]
    public void Bytes_that_are_not_utf8_are_named_by_their_place(byte[] bad)
    {
        using var file = new TextFile("a.jsonl", [.. "{\"text\":\"ok\"}\n{\"text\":\""u8, .. bad, .. "\"}\n{\"text\":\"ok\"}\n"u8]);

        var report = file.Validate();

        Assert.Equal((2, "invalid_utf8", 10), (report.Errors[0].Row, report.Errors[0].Code, report.Errors[0].Column));
        Assert.Equal(2, report.Train.UsedRows);
    }

    private static string Repeated(string open, Func<int, string> part, string close, int count)
    {
        var text = new StringBuilder(open);
        for (var i = 0; i < count && text.Length < 20 * Mebibyte; i++)
        {
            text.Append(part(i));
        }

        return text.Append(close).ToString();
    }
}
