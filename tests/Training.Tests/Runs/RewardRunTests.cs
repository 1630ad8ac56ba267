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

    [Theory]
    [InlineData("""{ "type": "reward", "score_layers": "mlp", "ensemble_size": 3, "ensemble_bootstrap": true }""", "eval/disagreement")]
    [InlineData("""{ "type": "regression", "value_head": "hl_gauss", "v_min": -1, "v_max": 4, "bins": 11 }""", "eval/correlation")]
    [InlineData("""{ "type": "classification", "loss": "f_beta", "classes": 2 }""", "eval/f1")]
    public void A_run_that_was_stopped_ends_in_the_bytes_of_one_that_was_not(string objective, string figure)
    {
        using var folder = new RunFolder();
        var pairs = File.ReadLines(Held).Take(16).Select(line => JsonNode.Parse(line)!).ToList();
        var rows = objective.Contains("\"reward\"", StringComparison.Ordinal) ? pairs : [.. pairs.Select((row, index) => (JsonNode)new JsonObject
        {
            ["prompt"] = row["prompt"]!.DeepClone(),
            ["completion"] = row[index % 2 == 0 ? "chosen" : "rejected"]!.DeepClone(),
            ["score"] = index % 2 == 0 ? 1 : 0,
        })];
        var path = folder.Rows("rows.jsonl", rows);
        var spec = Spec(path, steps: 4) with
        {
            Data = new() { Train = path, Validation = path },
            Objective = SpecJson.Parse($$"""{ "model": "m", "data": { "train": "t" }, "objective": {{objective}} }""").Spec!.Objective,
            Schedule = new() { MaxSteps = 4, BatchSize = 4, GradientAccumulationSteps = 2 },
            ActivationCheckpointing = ActivationCheckpointing.Full,
        };
        var done = folder.Run(spec, "unbroken");
        var control = new RunControl();
        Assert.Throws<RunStoppedException>(() => folder.Run(spec, "broken", control, report =>
        {
            if (report is StepReport { Step: 2 })
            {
                control.RequestCheckpointAndStop();
            }
        }));
        folder.Run(spec, "broken");

        Assert.Contains(figure, done.Metrics.Keys);
        foreach (var file in (string[])["adapter/adapter_model.safetensors", "adapter/objective.json", "metrics/results.csv"])
        {
            Assert.Equal(File.ReadAllBytes(folder.In("unbroken", file)), File.ReadAllBytes(folder.In("broken", file)));
        }

        Assert.Equal(spec.Objective, SavedObjective.Read(folder.In("unbroken", "adapter")));
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
