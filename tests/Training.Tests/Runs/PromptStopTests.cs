using System.Diagnostics;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Runs;

/// <summary>A run obeys at once, whatever it is busy with, and goes on to the bytes of a run that was left alone.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class PromptStopTests
{
    private const int Steps = 6;

    [Fact]
    public void A_run_that_is_stopped_at_every_one_of_its_reports_ends_in_the_bytes_of_one_that_was_not()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder);
        folder.Run(spec, "unbroken");
        var reports = folder.Reports.Count;

        // Each start is stopped one report later than the one before: in every phase, after each step, evaluation and checkpoint.
        var stops = 0;
        for (var after = 1; after <= 3 * reports; after++)
        {
            var control = new RunControl();
            try
            {
                folder.Run(spec, "broken", control, _ =>
                {
                    if (folder.Reports.Count == after)
                    {
                        control.RequestCheckpointAndStop();
                    }
                });
                break;
            }
            catch (RunStoppedException stopped)
            {
                stops++;
                Assert.InRange(stopped.Step, 0, Steps);
                Assert.False(File.Exists(folder.In("broken", "manifest.json")));
            }
        }

        Assert.InRange(stops, Steps, 3 * reports - 1);
        AssertSameArtifacts(folder, "unbroken", "broken");
    }

    [Fact]
    public void A_stop_inside_a_step_throws_the_half_of_it_away()
    {
        using var folder = new RunFolder();
        Train(folder, "unbroken", new CountingObjective());
        var control = new RunControl();
        var objective = new CountingObjective { Control = control, StopAt = 5 };   // the first of the two batches of step 3

        var stopped = Assert.Throws<RunStoppedException>(() => Train(folder, "broken", objective, control));

        Assert.Equal(2, stopped.Step);
        Assert.Equal(5, objective.Batches);
        foreach (var file in new[] { "adapter/adapter_model.safetensors", "optimizer.safetensors", "state.json" })
        {
            Assert.Equal(
                File.ReadAllBytes(folder.In("unbroken", "step-000002", file)), File.ReadAllBytes(folder.In("broken", "step-000002", file)));
        }
    }

    [Fact]
    public void A_stop_inside_an_evaluation_is_obeyed_at_its_next_batch()
    {
        using var folder = new RunFolder();
        var control = new RunControl();
        var objective = new CountingObjective { Control = control, StopAt = 2 };

        var stopped = Assert.Throws<RunStoppedException>(() => Train(folder, "work", objective, control, isEvaluated: true));

        Assert.Equal(0, stopped.Step);
        Assert.Equal(2, objective.Batches);
        Assert.Empty(Directory.EnumerateFileSystemEntries(folder.Path, "step-*", SearchOption.AllDirectories));
    }

    [Fact]
    public void A_stop_while_rows_are_read_is_obeyed_within_the_file()
    {
        using var folder = new RunFolder();
        var row = "{\"input_ids\": [5" + string.Concat(Enumerable.Repeat(", 7", 10)) + "]}\n";
        File.WriteAllText(folder.In("rows.jsonl"), string.Concat(Enumerable.Repeat(row, 300_000)));
        var control = new RunControl();
        var clock = new Stopwatch();

        var stopped = Assert.Throws<RunStoppedException>(() => folder.Run(Spec(folder, folder.In("rows.jsonl")), "work", control, _ =>
        {
            clock.Start();
            new Thread(control.RequestCheckpointAndStop).Start();
        }));

        Assert.Equal(0, stopped.Step);
        Assert.False(File.Exists(folder.In("work", "data", "report.json")));   // it did not read on to the end of the file
        Assert.InRange(clock.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(5));
    }

    private static void AssertSameArtifacts(RunFolder folder, string expected, string actual)
    {
        var files = Files(folder.In(expected));
        Assert.Equal(files, Files(folder.In(actual)));
        Assert.Contains("metrics/data_order.csv", files);
        foreach (var file in files.Where(file => !TimedFiles.Contains(Path.GetFileName(file))))
        {
            Assert.True(
                File.ReadAllBytes(folder.In(expected, file)).AsSpan().SequenceEqual(File.ReadAllBytes(folder.In(actual, file))), file);
        }
    }

    /// <summary>metrics.jsonl holds times, and manifests hold its hash.</summary>
    private static readonly string[] TimedFiles = ["metrics.jsonl", "manifest.json"];

    private static string[] Files(string folder) =>
        [.. Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Select(path => Path.GetRelativePath(folder, path)).Order()];

    /// <summary>Three steps of two batches, with a checkpoint of each.</summary>
    private static void Train(RunFolder folder, string work, ObjectiveConfig objective, RunControl? control = null, bool isEvaluated = false)
    {
        set_num_threads(1);
        var spec = Spec(folder) with { Objective = objective, Checkpoints = new() { EverySteps = 1, Keep = 9 }, Evaluation = new() { EverySteps = 9 } };
        var data = DataSets.Prepare(spec.Data, use: RowUse.Answers, tokenizer: null, 256, spec.Seed, progress: null, CancellationToken.None);
        using var model = CausalLm.Load(spec.Model, ScalarType.Float32, CPU);
        using var adapter = spec.Adapter.Attach(model, spec.Seed);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = spec.Optimizer.Create(parameters);
        using var metrics = new MetricsLog(folder.In(work, "metrics"), resumeStep: null);
        new Trainer
        {
            Spec = spec,
            Model = model,
            Adapter = adapter,
            Parameters = parameters,
            Optimizer = optimizer,
            Plan = new StepPlan(BatchPlan.ForTraining(data.Train, spec.Data, RowUse.Answers, 2, 0, spec.Seed), spec.Schedule with { MaxSteps = 3 }),
            Validation = isEvaluated ? data.Train : [],
            Checkpoints = new CheckpointStore(folder.In(work), "adapter", 9),
            CardOf = _ => new ModelCard("tiny"),
            Metrics = metrics,
            Report = _ => { },
            Device = CPU,
        }.Run(new CheckpointState { Step = 0 }, control ?? new RunControl(), CancellationToken.None);
    }

    /// <summary>Counts the batches it is asked to measure, and has the run stopped while it measures one of them.</summary>
    private sealed record CountingObjective : ObjectiveConfig
    {
        public RunControl? Control { get; init; }

        public int StopAt { get; init; }

        public int Batches { get; private set; }

        public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device)
        {
            if (++Batches == StopAt)
            {
                Control!.RequestCheckpointAndStop();
            }

            return NextToken.Measure(model, batch, device);
        }
    }

    private static TrainingSpec Spec(RunFolder folder, string? rows = null) => new()
    {
        Model = SharedData.Path("golden", "models", "llama_untied"),
        Data = new() { Train = rows ?? folder.TokenRows("rows.jsonl", 24), ValidationSplit = 0.2, MaxLength = 24, Packing = true },
        Adapter = new LoraConfig { Rank = 2, Dropout = 0.2 },
        Optimizer = new AdamWConfig { LearningRate = 1e-3 },
        Schedule = new() { MaxSteps = Steps, BatchSize = 2, GradientAccumulationSteps = 2 },
        Precision = Precision.Float32,
        Evaluation = new() { EverySteps = 2 },
        Checkpoints = new() { EverySteps = 3, Keep = 2 },
        Spectra = new() { EverySteps = 3 },
        Seed = 7,
    };
}
