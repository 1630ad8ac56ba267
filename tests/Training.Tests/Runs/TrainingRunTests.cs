using System.Security.Cryptography;
using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Runs;

public sealed class TrainingRunTests
{
    [Fact]
    public void A_run_writes_every_artifact_and_a_manifest_of_them()
    {
        using var folder = new RunFolder();
        var done = folder.Run(Spec(folder));

        string[] files =
        [
            "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/README.md", "metrics/metrics.jsonl",
            "metrics/results.csv", "metrics/loss.svg", "spectra/spectra.json", "data/report.json", "spec.json",
        ];
        var manifest = JsonSerializer.Deserialize<Manifest>(File.ReadAllBytes(folder.In("work", "manifest.json")), SpecJson.Options)!;
        Assert.Empty(files.Except(manifest.Files.Select(file => file.Path)));
        Assert.Contains(manifest.Files, file => file.Path.StartsWith("checkpoints/step-000006/", StringComparison.Ordinal));
        Assert.All(manifest.Files, file => Assert.Equal(
            file.Sha256, Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(folder.In("work", file.Path))))));
        Assert.Equal(6, done.Steps);
        Assert.True(done.Metrics["eval/loss"] < done.Metrics["eval/loss_before"]);
        Assert.Equal(Spec(folder), SpecJson.Parse(File.ReadAllText(folder.In("work", "spec.json"))).Spec, new SpecComparer());
    }

    [Fact]
    public void Rows_that_cannot_be_used_leave_the_report_that_names_them()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder);
        File.AppendAllText(folder.In("rows.jsonl"), "{\"input_ids\": [1, 2\n{\"input_ids\": [1, 999]}\n");
        var error = Assert.Throws<TrainingException>(() => folder.Run(spec));

        Assert.Equal("data.train:21", error.Param);
        var report = JsonSerializer.Deserialize<DataReport>(File.ReadAllBytes(folder.In("work", "data", "report.json")), SpecJson.Options)!;
        Assert.Equal([21, 22], report.Errors.Select(row => row.Row));
        Assert.False(File.Exists(folder.In("work", "manifest.json")));
    }

    [Fact]
    public void Reports_tell_phases_steps_evaluations_and_checkpoints_in_order()
    {
        using var folder = new RunFolder();
        folder.Run(Spec(folder));

        Assert.Equal(["tokenizing", "evaluating", "training"], folder.Reports.OfType<PhaseReport>().Take(3).Select(phase => phase.Phase));
        Assert.Equal(Enumerable.Range(1, 6), folder.Reports.OfType<StepReport>().Select(step => step.Step));
        Assert.Equal([0, 3, 6], folder.Reports.OfType<MetricReport>().Select(metric => metric.Step));
        Assert.Contains(folder.Reports, report => report is CheckpointReport { Step: 6, Path: "checkpoints/step-000006" });
        var last = folder.Reports.OfType<StepReport>().Last();
        Assert.Equal(6, last.TotalSteps);
        Assert.InRange(last.TrainedTokens, 1, last.TokensSeen);
        Assert.InRange(last.TokenAccuracy!.Value, 0, 1);
    }

    [Fact]
    public void Results_have_the_columns_that_clients_read()
    {
        using var folder = new RunFolder();
        folder.Run(Spec(folder));

        var lines = File.ReadAllLines(folder.In("work", "metrics", "results.csv"));
        Assert.Equal("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy", lines[0]);
        Assert.Equal(["0", "1", "2", "3", "4", "5", "6"], lines.Skip(1).Select(line => line.Split(',')[0]));
        Assert.Matches(@"^0,,,\d+\.\d+,\d", lines[1]);
        Assert.Matches(@"^1,\d+\.\d+,[\d.E-]+,,$", lines[2]);
        Assert.Matches(@"^3,\d+\.\d+,[\d.E-]+,\d+\.\d+,[\d.E-]+$", lines[4]);
        Assert.Equal(9, File.ReadAllLines(folder.In("work", "metrics", "metrics.jsonl")).Length);
    }

    [Fact]
    public void Old_checkpoints_go_and_the_best_stays()
    {
        using var folder = new RunFolder();
        folder.Run(Spec(folder) with { Checkpoints = new() { EverySteps = 1, Keep = 2 }, Optimizer = new SgdConfig { LearningRate = 0.1 } });
        var best = folder.Reports.OfType<CheckpointReport>().Where(checkpoint => checkpoint.Best).Select(checkpoint => checkpoint.Step).DefaultIfEmpty(6).Last();

        var kept = Directory.GetDirectories(folder.In("work", "checkpoints")).Select(Path.GetFileName).Order();
        Assert.Equal(new[] { best, 5, 6 }.Distinct().Order().Select(step => $"step-{step:D6}"), kept);
        Assert.All(kept, name => Assert.True(Manifest.Verify(folder.In("work", "checkpoints", name!), out _)));
    }

    [Fact]
    public void Early_stopping_ends_the_run_and_saves_the_best_weights()
    {
        using var folder = new RunFolder();

        // At this rate the held-out loss rises from the first measurement on.
        var done = folder.Run(Spec(folder) with
        {
            Schedule = new() { MaxSteps = 40, BatchSize = 4, WarmupRatio = 0, LrScheduler = LrScheduler.Constant },
            Optimizer = new AdamWConfig { LearningRate = 0.3 },
            Evaluation = new() { EverySteps = 2, EarlyStoppingPatience = 2 },
            Checkpoints = new() { EverySteps = 100, Keep = 1 },
        });

        Assert.InRange(done.Steps, 6, 38);
        var best = (int)done.Metrics["eval/best_step"];
        Assert.Equal(done.Steps - 4, best);
        Assert.Equal(
            File.ReadAllBytes(folder.In("work", "checkpoints", $"step-{best:D6}", "adapter", "adapter_model.safetensors")),
            File.ReadAllBytes(folder.In("work", "adapter", "adapter_model.safetensors")));
    }

    [Fact]
    public void A_loss_that_is_not_finite_ends_the_run_with_the_step_and_the_setting_to_change()
    {
        using var folder = new RunFolder();
        var error = Assert.Throws<TrainingException>(() => folder.Run(Spec(folder) with
        {
            Adapter = new FullConfig(),
            Optimizer = new SgdConfig { LearningRate = 1e30 },
            Schedule = new() { MaxSteps = 6, WarmupRatio = 0, MaxGradNorm = null },
        }));

        Assert.Equal(FailureCode.Diverged, error.Code);
        Assert.Equal("optimizer.learning_rate", error.Param);
        Assert.Contains("step 2", error.Message);
        Assert.Contains("max_grad_norm", error.Message);
        Assert.False(File.Exists(folder.In("work", "manifest.json")));
    }

    [Fact]
    public void A_cancelled_run_throws_and_leaves_no_manifest()
    {
        using var folder = new RunFolder();
        using var cancellation = new CancellationTokenSource();
        Assert.Throws<OperationCanceledException>(() => TrainingRun.Execute(
            Spec(folder), folder.In("work"),
            report =>
            {
                if (report is StepReport)
                {
                    cancellation.Cancel();
                }
            },
            new RunControl(), cancellation.Token));
        Assert.False(File.Exists(folder.In("work", "manifest.json")));
    }

    [Fact]
    public void Pretraining_may_start_from_a_configuration_alone()
    {
        using var folder = new RunFolder();
        Directory.CreateDirectory(folder.In("new"));
        File.Copy(SharedData.Path("golden", "models", "llama_untied", "config.json"), folder.In("new", "config.json"));
        var spec = Spec(folder) with { Model = folder.In("new"), Objective = new PretrainingConfig(), Adapter = new FullConfig() };
        folder.Run(spec, "one");
        folder.Run(spec, "two");

        Assert.InRange(folder.Losses[0], 5, 6);   // ln 256 = 5.5: a new model knows nothing
        Assert.Equal(File.ReadAllBytes(folder.In("one", "model", "model.safetensors")), File.ReadAllBytes(folder.In("two", "model", "model.safetensors")));
        using var saved = CausalLm.Load(folder.In("one", "model"), ScalarType.Float32, CPU);
        Assert.NotEmpty(saved.NamedWeights());
    }

    [Fact]
    public void Bfloat16_runs_train_float32_adapters()
    {
        using var folder = new RunFolder();
        folder.Run(Spec(folder) with { Precision = Precision.Bfloat16 });

        using var file = SafeTensorsFile.Open(folder.In("work", "adapter", "adapter_model.safetensors"));
        Assert.All(file.Entries.Values, tensor => Assert.Equal(SafeTensorType.F32, tensor.DType));
        Assert.True(folder.Losses[^1] < folder.Losses[0]);
    }

    private static TrainingSpec Spec(RunFolder folder) => new()
    {
        Model = SharedData.Path("golden", "models", "llama_untied"),
        Data = new() { Train = folder.TokenRows("rows.jsonl", 20), ValidationSplit = 0.2, MaxLength = 16, Packing = false },
        Adapter = new LoraConfig { Rank = 4 },
        Optimizer = new AdamWConfig { LearningRate = 5e-3 },
        Schedule = new() { MaxSteps = 6, BatchSize = 8 },
        Evaluation = new() { EverySteps = 3 },
    };

    /// <summary>Records compare their lists by reference, so specs are compared as documents.</summary>
    private sealed class SpecComparer : IEqualityComparer<TrainingSpec?>
    {
        public bool Equals(TrainingSpec? x, TrainingSpec? y) => SpecJson.Serialize(x!) == SpecJson.Serialize(y!);

        public int GetHashCode(TrainingSpec? obj) => 0;
    }
}
