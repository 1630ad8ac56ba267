using System.Globalization;
using System.Text.Json;
using TrainingService.Training.Data;

namespace TrainingService.Training;

/// <summary>
/// Writes <c>metrics.jsonl</c> (every figure of every step), <c>results.csv</c> (the columns that OpenAI clients read) and
/// <c>data_order.csv</c> (which examples each batch held, in order).
/// </summary>
/// <remarks>The two tables hold nothing that depends on time: two runs of one spec and one seed write the same bytes.</remarks>
public sealed class MetricsLog : IDisposable
{
    /// <summary>The files, by name.</summary>
    public static IReadOnlyList<string> Files { get; } = ["metrics.jsonl", "results.csv", "data_order.csv"];

    private const string Header = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy";
    private const string OrderHeader = "step,epoch,batch,rows";
    private readonly StreamWriter _lines;
    private readonly StreamWriter _table;
    private readonly StreamWriter _order;
    private (int Step, double? Loss, double? Accuracy, double? ValidLoss, double? ValidAccuracy)? _row;

    /// <param name="folder">Created when missing.</param>
    /// <param name="resumeStep">Lines of earlier steps and this one stay; later ones belong to a part of the run that is done again.</param>
    public MetricsLog(string folder, int? resumeStep)
    {
        Directory.CreateDirectory(folder);
        _lines = Reopen(Path.Combine(folder, "metrics.jsonl"), resumeStep, header: null, StepOfLine);
        _table = Reopen(Path.Combine(folder, "results.csv"), resumeStep, Header, StepOfRow, KeepInHand);
        _order = Reopen(Path.Combine(folder, "data_order.csv"), resumeStep, OrderHeader, StepOfRow);
    }

    /// <summary>Records what a step was computed from.</summary>
    /// <param name="batch">Number of the first of <paramref name="planned"/> in its epoch, from 0.</param>
    public void Order(int step, int epoch, int batch, IReadOnlyList<PlannedBatch> planned)
    {
        foreach (var one in planned)
        {
            _order.Write(string.Create(
                CultureInfo.InvariantCulture, $"{step},{epoch},{batch++},{string.Join(' ', one.Sequences.SelectMany(examples => examples))}\n"));
        }
    }

    public void Step(StepReport step)
    {
        Write(step.Step, step.Named());
        Row(step.Step);
        _row = (step.Step, step.Loss, step.TokenAccuracy ?? step.Accuracy, null, null);
    }

    public void Evaluated(int step, Evaluation evaluation, IReadOnlyDictionary<string, double> values)
    {
        Write(step, values);
        Row(step);
        _row = (_row ?? (step, null, null, null, null)) with
        {
            ValidLoss = evaluation.Loss,
            ValidAccuracy = values.Any(value => value.Key is "eval/accuracy" or "eval/token_accuracy") ? evaluation.Accuracy : null,
        };
    }

    /// <summary>Brings the files on disk up to date, so that a checkpoint and what was measured before it agree.</summary>
    public void Flush()
    {
        Row(int.MaxValue);
        _lines.Flush();
        _table.Flush();
        _order.Flush();
    }

    public void Dispose()
    {
        Flush();
        _lines.Dispose();
        _table.Dispose();
        _order.Dispose();
    }

    private void Write(int step, IReadOnlyDictionary<string, double> values)
    {
        using var buffer = new MemoryStream();
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartObject();
            json.WriteNumber("step", step);
            foreach (var (name, value) in values)
            {
                json.WriteNumber(name, value);
            }

            json.WriteEndObject();
        }

        _lines.Write(System.Text.Encoding.UTF8.GetString(buffer.GetBuffer(), 0, (int)buffer.Length));
        _lines.Write('\n');
        _lines.Flush();
    }

    /// <summary>Writes the row in hand when <paramref name="next"/> is another step: a row is complete when the next one begins.</summary>
    private void Row(int next)
    {
        if (_row is not { } row || row.Step == next)
        {
            return;
        }

        _table.Write(string.Create(CultureInfo.InvariantCulture, $"{row.Step},{row.Loss},{row.Accuracy},{row.ValidLoss},{row.ValidAccuracy}\n"));
        _row = null;
    }

    /// <param name="inHand">Given the kept lines; what it takes away from their end is written later.</param>
    private static StreamWriter Reopen(
        string path, int? resumeStep, string? header, Func<string, int?> stepOf, Action<List<string>, int>? inHand = null)
    {
        List<string> kept = [];
        if (resumeStep is { } last && File.Exists(path))
        {
            kept.AddRange(File.ReadLines(path).Where(line => stepOf(line) is { } step && step <= last));
            inHand?.Invoke(kept, last);
        }

        var writer = new StreamWriter(path, append: false) { NewLine = "\n" };
        foreach (var line in header is null ? kept : kept.Prepend(header))
        {
            writer.WriteLine(line);
        }

        writer.Flush();
        return writer;
    }

    /// <summary>The row of the last step may still get its evaluation, which then belongs on the same line.</summary>
    private void KeepInHand(List<string> rows, int step)
    {
        if (rows.Count > 0 && StepOfRow(rows[^1]) == step)
        {
            var fields = rows[^1].Split(',');
            _row = (step, Number(fields[1]), Number(fields[2]), Number(fields[3]), Number(fields[4]));
            rows.RemoveAt(rows.Count - 1);
        }

        static double? Number(string text) => text.Length == 0 ? null : double.Parse(text, CultureInfo.InvariantCulture);
    }

    private static int? StepOfRow(string line) =>
        int.TryParse(line.AsSpan(0, Math.Max(0, line.IndexOf(','))), CultureInfo.InvariantCulture, out var step) ? step : null;

    /// <summary>The step of a line of ours; null for the half line that a killed process may leave.</summary>
    private static int? StepOfLine(string line)
    {
        const string start = "{\"step\":";
        return line.StartsWith(start, StringComparison.Ordinal) && line.EndsWith('}')
            && int.TryParse(line.AsSpan(start.Length, line.IndexOfAny([',', '}']) - start.Length), CultureInfo.InvariantCulture, out var step)
            ? step
            : null;
    }
}
