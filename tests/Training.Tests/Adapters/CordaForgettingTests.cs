using System.Text.Json;
using TrainingService.Tests;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>The sample model learns the sample task, and its loss on the plain messages that it was trained on is measured beside it.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class CordaForgettingTests
{
    private const int Shown = 256;   // their tokens are many times as many as the model is wide
    private const int Steps = 24;

    private static readonly string Folder = GeneratedFile.Locate("samples", "model");

    private readonly List<Row> _messages = [];
    private readonly List<Row> _task = [];

    public CordaForgettingTests()
    {
        set_num_threads(1);
        var tokenizer = Tokenizer.Load(Folder);
        foreach (var line in File.ReadLines(GeneratedFile.Locate("samples", "data", "train.jsonl")).Take(Shown + 16).Select(line => JsonElement.Parse(line)))
        {
            var prompt = line.GetProperty("prompt").GetString()!;
            _messages.Add(new(tokenizer.Encode(prompt.Split('\n')[0]), Prompt: 1));
            _task.Add(new(tokenizer.Encode(prompt + line.GetProperty("completion").GetString()), tokenizer.Encode(prompt).Count));
        }
    }

    [Fact]
    public void What_is_preserved_is_forgotten_less_than_by_lora_at_the_same_task_loss()
    {
        var lora = Train(new LoraConfig { Rank = 8, Alpha = 8 }, until: 0);
        var preserving = Train(new CordaConfig { Rank = 8, Alpha = 8, Mode = CordaMode.KnowledgePreserved }, until: lora.Task);

        Assert.True(preserving.Task <= lora.Task, $"{preserving} {lora}");
        Assert.True(preserving.Base < lora.Base - 0.03, $"{preserving} {lora}");
    }

    // Losses on rows that were not trained on, at the last step or at the first of each three at which the task's loss is low enough.
    private (double Task, double Base) Train(LayerAdapterConfig config, double until)
    {
        using var model = CausalLm.Load(Folder, ScalarType.Float32, CPU);
        using var scope = NewDisposeScope();
        var rows = new Calibration(new SftConfig(), CPU, limit => _messages.Take(Math.Min(limit, Shown)).Select(row => BatchOf([row])));
        using var adapter = config.Attach(model, seed: 1, rows);
        using var optimizer = optim.AdamW(adapter.Trainable.Select(tensor => tensor.Parameter), lr: 3e-3, weight_decay: 0);
        var losses = (Task: double.MaxValue, Base: double.MaxValue);
        for (var step = 1; step <= Steps && losses.Task > until; step++)
        {
            using var inner = NewDisposeScope();
            optimizer.zero_grad();
            LossOf(model, _task.Skip(step * 16 % 64).Take(16)).backward();
            optimizer.step();
            if (step % 3 == 0 && (until > 0 || step == Steps))
            {
                using var off = no_grad();
                losses = (LossOf(model, _task.Skip(Shown)).item<float>(), LossOf(model, _messages.Skip(Shown)).item<float>());
            }
        }

        return losses;
    }

    private static Tensor LossOf(CausalLm model, IEnumerable<Row> rows)
    {
        var batch = BatchOf([.. rows]);
        return new SftConfig().Measure(model, batch, CPU).Sum / (double)batch.TrainableTokens;
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
