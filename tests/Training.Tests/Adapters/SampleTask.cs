using System.Text.Json;
using TrainingService.Tests;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>The sample model, whose weights are trained ones, and the sample task: writing order messages as records.</summary>
internal sealed class SampleTask
{
    private const int BatchSize = 16;
    private const int BatchCount = 4;   // of training rows; then they come again
    private const int Messages = 256;   // their tokens are many times as many as the model is wide

    private static readonly string Folder = GeneratedFile.Locate("samples", "model");

    private readonly List<Row> _messages = [];
    private readonly List<Row> _task = [];

    public SampleTask()
    {
        set_num_threads(1);
        var tokenizer = Tokenizer.Load(Folder);
        foreach (var line in File.ReadLines(GeneratedFile.Locate("samples", "data", "train.jsonl")).Take(Messages + BatchSize).Select(line => JsonElement.Parse(line)))
        {
            var prompt = line.GetProperty("prompt").GetString()!;
            _messages.Add(new(tokenizer.Encode(prompt.Split('\n')[0]), Prompt: 1));
            _task.Add(new(tokenizer.Encode(prompt + line.GetProperty("completion").GetString()), tokenizer.Encode(prompt).Count));
        }
    }

    /// <summary>Plain messages, which the model was trained on, for an adapter to look at.</summary>
    public Calibration PlainMessages => Shown(_messages, Messages);

    /// <summary>The training rows, for an adapter to look at.</summary>
    public Calibration TrainingRows => Shown(_task, BatchSize * BatchCount);

    public static CausalLm Load() => CausalLm.Load(Folder, ScalarType.Float32, CPU);

    /// <summary>One step on the next batch of 16 rows.</summary>
    public void Step(CausalLm model, optim.Optimizer optimizer, int step)
    {
        using var scope = NewDisposeScope();
        optimizer.zero_grad();
        LossOf(model, _task.Skip(step % BatchCount * BatchSize).Take(BatchSize)).backward();
        optimizer.step();
    }

    /// <summary>Mean loss of rows that were not trained on, nats per token.</summary>
    public double HeldOut(CausalLm model) => Measured(model, _task);

    /// <summary>The same of plain messages, which were not looked at either.</summary>
    public double OfPlainMessages(CausalLm model) => Measured(model, _messages);

    private static double Measured(CausalLm model, List<Row> rows)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        return LossOf(model, rows.Skip(Messages)).item<float>();
    }

    private static Calibration Shown(List<Row> rows, int count) =>
        new(new SftConfig(), CPU, limit => rows.Take(Math.Min(limit, count)).Select(row => BatchOf([row])));

    private static Tensor LossOf(CausalLm model, IEnumerable<Row> rows)
    {
        var batch = BatchOf([.. rows]);
        return new SftConfig().Measure(model, null, batch, CPU).Sum / (double)batch.TrainableTokens;
    }

    private static Batch BatchOf(IReadOnlyList<Row> rows)
    {
        var length = rows.Max(row => row.Ids.Count);
        return new(
            rows.Count, length,
            Each((row, at) => at < row.Ids.Count ? row.Ids[at] : 0),
            Each((row, at) => at >= row.Prompt && at < row.Ids.Count ? row.Ids[at] : Example.Ignored),
            Each((_, at) => at),
            Segments: null);

        long[] Each(Func<Row, int, long> value) => [.. rows.SelectMany(row => Enumerable.Range(0, length).Select(at => value(row, at)))];
    }

    /// <param name="Prompt">Tokens at the start that carry no loss.</param>
    private sealed record Row(IReadOnlyList<int> Ids, int Prompt);
}
