using System.Text.Json.Nodes;
using TrainingService.Tests;
using TrainingService.Training.Adapters;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;

namespace TrainingService.Training.Tests.Runs;

/// <summary>
/// Whole runs on the sample model and the generated preferences of <c>samples/data</c>: of two replies to a message, the one that states more parts of the
/// order is better.
/// </summary>
public sealed class RewardRunTests(ITestOutputHelper output)
{
    private static readonly string Held = GeneratedFile.Locate("samples", "data", "preferences-validation.jsonl");

    [Fact]
    public void A_known_rule_is_learned()
    {
        using var folder = new RunFolder();
        var done = folder.Run(Spec(GeneratedFile.Locate("samples", "data", "preferences.jsonl"), steps: 50));

        output.WriteLine($"held-out accuracy {done.Metrics["eval/accuracy_before"]} → {done.Metrics["eval/accuracy"]}");
        Assert.True(done.Metrics["eval/accuracy"] >= 0.95, $"{done.Metrics["eval/accuracy"]}");
    }

    [Fact]
    public void A_quarter_of_flipped_labels_is_withstood()
    {
        using var folder = new RunFolder();
        var rows = File.ReadLines(GeneratedFile.Locate("samples", "data", "preferences.jsonl")).Select(line => JsonNode.Parse(line)!.AsObject()).ToList();
        foreach (var row in rows.Index().Where(row => row.Index % 4 == 0).Select(row => row.Item))
        {
            (row["chosen"], row["rejected"]) = (row["rejected"]!.DeepClone(), row["chosen"]!.DeepClone());
        }

        var done = folder.Run(Spec(folder.Rows("flipped.jsonl", rows), steps: 50));

        output.WriteLine($"held-out accuracy with flipped labels {done.Metrics["eval/accuracy"]}");
        Assert.True(done.Metrics["eval/accuracy"] >= 0.85, $"{done.Metrics["eval/accuracy"]}");
    }

    private static TrainingSpec Spec(string rows, int steps) => new()
    {
        Model = GeneratedFile.Locate("samples", "model"),
        Data = new() { Train = rows, Validation = Held, MaxLength = 256 },
        Objective = new RewardConfig(),
        Adapter = new LoraConfig { Rank = 8, Alpha = 16 },
        Optimizer = new AdamWConfig { LearningRate = 3e-3 },
        Schedule = new() { MaxSteps = steps, BatchSize = 16, WarmupRatio = 0.1 },
        Evaluation = new() { EverySteps = steps },
        Checkpoints = new() { EverySteps = 1000 },
        Spectra = new() { Enabled = false },
        Seed = 7,
    };
}
