using TrainingService.Training.Data;

namespace TrainingService.Training.Tests.Data;

/// <summary>Token sequences on the disk: made once, known again, and never believed when they are not whole.</summary>
public sealed class TokenCacheTests
{
    [Fact]
    public void The_same_rows_are_tokenised_once()
    {
        using var folder = new TemporaryFolder();
        using var file = new TextFile("a.jsonl", Rows(5000));
        using var copy = new TextFile("b.jsonl", Rows(5000));

        using var first = Prepare(file, folder, out var readFirst);
        using var again = Prepare(copy, folder, out var readAgain);

        Assert.True(readFirst > 0);
        Assert.Equal(0, readAgain);
        Assert.Equal(first.Train.Select(Show), again.Train.Select(Show));
        Assert.Equal(first.Content, again.Content);
        Assert.Equivalent(first.Report, again.Report, strict: true);
        Assert.Single(Directory.GetDirectories(folder.Path));
    }

    [Fact]
    public void Whatever_decides_the_tokens_decides_the_place()
    {
        using var folder = new TemporaryFolder();
        using var file = new TextFile("a.jsonl", Rows(30));
        using var other = new TextFile("a.jsonl", Rows(31));
        Prepare(file, folder, out _).Dispose();

        Prepare(other, folder, out var otherRows).Dispose();
        Prepare(file, folder, out var otherLength, new() { Train = "", MaxLength = 8 }).Dispose();
        Prepare(file, folder, out var otherLabels, new() { Train = "", TrainOnPrompt = true }).Dispose();
        Prepare(file, folder, out var otherTokenizer, tokenizerSha256: "other").Dispose();
        Prepare(file, folder, out var otherSplit, new() { Train = "", ValidationSplit = 0.5, Packing = false }).Dispose();

        Assert.All([otherRows, otherLength, otherLabels, otherTokenizer], read => Assert.True(read > 0));
        Assert.Equal(0, otherSplit);   // which rows are held back is decided after they were tokenised
    }

    [Theory]
    [InlineData("cut")]
    [InlineData("changed records")]
    [InlineData("changed table")]
    [InlineData("longer")]
    [InlineData("empty")]
    [InlineData("foreign")]
    public void A_file_that_is_not_whole_is_made_again(string how)
    {
        using var folder = new TemporaryFolder();
        using var file = new TextFile("a.jsonl", Rows(200));
        using var other = new TextFile("a.jsonl", Rows(100));
        string[] expected;
        using (var whole = Prepare(file, folder, out _))
        {
            expected = [.. whole.Train.Select(Show)];
        }

        var path = Directory.GetFiles(folder.Path, "tokens.bin", SearchOption.AllDirectories).Single();
        var bytes = File.ReadAllBytes(path);
        using (var elsewhere = new TemporaryFolder())
        {
            Prepare(other, elsewhere, out _).Dispose();
            File.WriteAllBytes(path, how switch
            {
                "cut" => bytes[..^1],
                "changed records" => [.. bytes[..40], (byte)(bytes[40] ^ 1), .. bytes[41..]],
                "changed table" => [.. bytes[..^1000], (byte)(bytes[^1000] ^ 1), .. bytes[^999..]],
                "longer" => [.. bytes, 0],
                "empty" => [],
                _ => File.ReadAllBytes(Directory.GetFiles(elsewhere.Path, "tokens.bin", SearchOption.AllDirectories).Single()),
            });
        }

        using (var made = Prepare(file, folder, out var read))
        {
            Assert.True(read > 0);
            Assert.Equal(expected, made.Train.Select(Show));
        }

        Assert.Equal(bytes, File.ReadAllBytes(path));
        Assert.Single(Directory.GetDirectories(folder.Path));
    }

    [Fact]
    public void Rows_in_error_and_a_stop_leave_nothing_behind()
    {
        using var folder = new TemporaryFolder();
        using var broken = new TextFile("a.jsonl", Rows(3000) + "{]");
        using var rows = new TextFile("a.jsonl", Rows(10_000));
        using var stop = new CancellationTokenSource();

        Assert.Throws<TrainingException>(() => Prepare(broken, folder, out _));
        Assert.ThrowsAny<OperationCanceledException>(() => DataSets.Prepare(
            new() { Train = rows.Path }, RowUse.Answers, new CharacterTokenizer(), 256, 1, _ => stop.Cancel(), stop.Token, new TokenCache(folder.Path, "t")));

        Assert.Empty(Directory.GetFileSystemEntries(folder.Path));
    }

    [Fact]
    public void Labels_that_are_no_ids_and_large_ids_come_back_as_they_were()
    {
        using var folder = new TemporaryFolder();
        using var file = new TextFile("a.jsonl", """
            {"input_ids": [5, 70000, 7], "labels": [6, -100, 8]}
            {"input_ids": [1, 2, 3, 99999], "labels": [-100, 2, -100, 99999]}
            """);

        using var data = DataSets.Prepare(
            new() { Train = file.Path }, RowUse.Answers, null, 100_000, 1, null, TestContext.Current.CancellationToken, new TokenCache(folder.Path, null));

        Assert.Equal([[5, 70000, 7], [1, 2, 3, 99999]], data.Train.Select(example => example.InputIds));
        Assert.Equal([[6, -100, 8], [-100, 2, -100, 99999]], data.Train.Select(example => example.Labels));
    }

    [Fact]
    public void Rows_and_errors_stay_in_the_order_of_the_file()
    {
        // Several runs of rows, which several threads work on.
        using var file = new TextFile("a.jsonl", Rows(6000));
        using var broken = new TextFile("a.jsonl", string.Concat(Enumerable.Range(1, 6000).Select(
            row => row % 105 == 0 ? $"{{\"prompt\": {row}, \"completion\": \"b\"}}\n" : "{\"prompt\": \"a\", \"completion\": \"b\"}\n")));

        using var data = file.Prepare();
        var report = broken.Validate();

        Assert.Equal(Enumerable.Range(1, 6000), data.Train.Select(example => example.Row));
        Assert.Equal(Enumerable.Range(1, 57).Select(i => (int?)(105 * i)), report.Errors.Select(error => error.Row));
        Assert.Equal(6000, report.Train.Rows);
    }

    private static PreparedData Prepare(
        TextFile file, TemporaryFolder folder, out int read, DataConfig? config = null, string tokenizerSha256 = "t")
    {
        var calls = 0;
        var data = DataSets.Prepare(
            (config ?? new() { Train = "" }) with { Train = file.Path }, RowUse.Answers, new CharacterTokenizer(), 256, 1, _ => calls++,
            TestContext.Current.CancellationToken, new TokenCache(folder.Path, tokenizerSha256));
        read = calls;
        return data;
    }

    private static string Rows(int count) => string.Concat(Enumerable.Range(0, count).Select(
        row => $"{{\"prompt\": \"{row % 977}\", \"completion\": \"{new string((char)('a' + (row % 26)), 1 + (row % 13))}\"}}\n"));

    private static string Show(Example example) =>
        $"{example.Row}: {string.Join(' ', example.InputIds)} / {string.Join(' ', example.Labels)}";
}
