using System.Diagnostics;
using System.Text;
using TrainingService.Training.Data;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Bench;

/// <summary>How fast rows are checked and become tokens, with the sample model's tokenizer.</summary>
internal static class DataRates
{
    private const int ValidatedMegabytes = 64;
    private const int TokenizedMegabytes = 16;

    private static readonly string[] Words =
        ["order", "number", "blue", "eleven", "Monday", "please", "send", "the", "parcel", "to", "a", "customer", "before", "noon", "and", "call"];

    public static void Run(CancellationToken cancellationToken)
    {
        var folder = Directory.CreateTempSubdirectory("training-bench-").FullName;
        try
        {
            var rows = Path.Combine(folder, "rows.jsonl");
            var bytes = WriteRows(rows, ValidatedMegabytes);
            var clock = Stopwatch.StartNew();
            var report = DataSets.Validate(rows, cancellationToken: cancellationToken);
            Print("validation", bytes, clock.Elapsed, $"{bytes >> 20} MiB of JSONL, {report.Train.UsedRows} rows, structure alone");

            bytes = WriteRows(rows, TokenizedMegabytes);
            var tokenizer = Tokenizer.Load(Path.Combine("samples", "model"));
            clock.Restart();
            var data = DataSets.Inspect(
                new DataConfig { Train = rows }, use: RowUse.Answers, tokenizer, tokenizer.VocabularySize, seed: 1, progress: null, cancellationToken);
            Print("tokenising", bytes, clock.Elapsed, $"{bytes >> 20} MiB of JSONL, {data.Train.Count} rows, the sample model's byte-level BPE");
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static void Print(string name, long bytes, TimeSpan time, string conditions) =>
        new Figure(name, bytes / 1e6 / time.TotalSeconds, "MB/s", conditions).Print();

    private static long WriteRows(string path, int megabytes)
    {
        var random = new Random(1);
        using var writer = new StreamWriter(path, append: false, new UTF8Encoding(false)) { NewLine = "\n" };
        var text = new StringBuilder();
        string Sentence(int words)
        {
            text.Clear();
            for (var word = 0; word < words; word++)
            {
                text.Append(word == 0 ? "" : " ").Append(Words[random.Next(Words.Length)]).Append(random.Next(8) == 0 ? random.Next(1000) : "");
            }

            return text.ToString();
        }

        while (writer.BaseStream.Position < (long)megabytes << 20)
        {
            writer.WriteLine($$"""{"prompt": "{{Sentence(60)}}\n", "completion": "{{Sentence(30)}}"}""");
        }

        writer.Flush();
        return writer.BaseStream.Position;
    }
}
