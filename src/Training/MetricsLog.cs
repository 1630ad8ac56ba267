using System.Globalization;
using System.Text.Json;

namespace TrainingService.Training;

/// <summary>Writes <c>metrics.jsonl</c> (every figure of every step) and <c>results.csv</c> (the columns that OpenAI clients read).</summary>
public sealed class MetricsLog : IDisposable
{
    private const string Header = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy";
    private readonly StreamWriter _lines;
    private readonly StreamWriter _table;
    private (int Step, double? Loss, double? Accuracy, double? ValidLoss, double? ValidAccuracy)? _row;

    /// <param name="folder">Created when missing.</param>
    /// <param name="resumeStep">Lines of earlier steps and this one stay; later ones belong to a part of the run that is done again.</param>
    public MetricsLog(string folder, int? resumeStep)
    {
        Directory.CreateDirectory(folder);
        _lines = Reopen(Path.Combine(folder, "metrics.jsonl"), resumeStep, header: null, StepOfLine);
        _table = Reopen(Path.Combine(folder, "results.csv"), resumeStep, Header, StepOfRow);
    }

    public void Step(StepReport step)
    {
        Write(step.Step, new Dictionary<string, double>
        {
            ["train/loss"] = step.Loss,
            ["train/token_accuracy"] = step.TokenAccuracy ?? 0,
            ["learning_rate"] = step.LearningRate,
            ["grad_norm"] = step.GradNorm,
            ["tokens_per_second"] = step.TokensPerSecond,
            ["tokens_seen"] = step.TokensSeen,
            ["trained_tokens"] = step.TrainedTokens,
            ["memory_bytes"] = step.MemoryBytes,
            ["epoch"] = step.Epoch,
        });
        Row(step.Step);
        _row = (step.Step, step.Loss, step.TokenAccuracy, null, null);
    }

    public void Evaluated(int step, Evaluation evaluation, IReadOnlyDictionary<string, double> values)
    {
        Write(step, values);
        Row(step);
        _row = (_row ?? (step, null, null, null, null)) with { ValidLoss = evaluation.Loss, ValidAccuracy = evaluation.TokenAccuracy };
    }

    /// <summary>Brings both files on disk up to date, so that a checkpoint and what was measured before it agree.</summary>
    public void Flush()
    {
        Row(int.MaxValue);
        _lines.Flush();
        _table.Flush();
    }

    public void Dispose()
    {
        Flush();
        _lines.Dispose();
        _table.Dispose();
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

    private static StreamWriter Reopen(string path, int? resumeStep, string? header, Func<string, int?> stepOf)
    {
        var kept = resumeStep is { } last && File.Exists(path)
            ? File.ReadLines(path).Where(line => stepOf(line) is { } step && step <= last).ToArray()
            : [];
        var writer = new StreamWriter(path, append: false) { NewLine = "\n" };
        foreach (var line in header is null ? kept : kept.Prepend(header))
        {
            writer.WriteLine(line);
        }

        writer.Flush();
        return writer;
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
