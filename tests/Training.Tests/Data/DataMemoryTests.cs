using System.Globalization;
using TrainingService.Training.Data;

namespace TrainingService.Training.Tests.Data;

/// <summary>What data takes in memory. Counts the memory of the whole process, so nothing else runs meanwhile.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class DataMemoryTests
{
    private const int Rows = 2000;

    [Fact]
    public void Memory_follows_the_number_of_rows_and_not_their_length()
    {
        // As objects, the long rows would take 8 bytes a token more: 13 MB.
        using var shortRows = new TextFile("a.jsonl", Text(tokens: 200));   // 1.6 MB
        using var longRows = new TextFile("a.jsonl", Text(tokens: 1000));   // 8 MB

        var small = Growth(shortRows);
        var large = Growth(longRows);

        Assert.InRange(large - small, -Rows * 100, Rows * 100);
        Assert.InRange(large, 0, 1_000_000);   // some seventy bytes a row here and in the plan, in chunks of 16 384 numbers
    }

    private static long Growth(TextFile file)
    {
        Use(file, measure: false);   // what is made once and for all
        return Use(file, measure: true);
    }

    private static long Use(TextFile file, bool measure)
    {
        var before = measure ? GC.GetTotalMemory(forceFullCollection: true) : 0;
        using var data = DataSets.Prepare(
            new() { Train = file.Path }, RowUse.Answers, tokenizer: null, 60_000, 1, progress: null, TestContext.Current.CancellationToken);
        var plan = BatchPlan.ForTraining(data.Train, new() { Train = "" }, RowUse.Answers, batchSize: 8, padId: 0, seed: 1);
        var epoch = plan.ForEpoch(1);
        Assert.Equal(Rows, data.Train.Count);
        var growth = measure ? GC.GetTotalMemory(forceFullCollection: true) - before : 0;
        GC.KeepAlive(epoch);
        return growth;
    }

    private static string Text(int tokens) => string.Concat(Enumerable.Range(0, Rows).Select(row =>
        "{\"input_ids\": ["
        + string.Join(',', Enumerable.Range(0, tokens).Select(t => (100 + (((row * 31) + (t * 17)) % 900)).ToString(CultureInfo.InvariantCulture)))
        + "]}\n"));
}
