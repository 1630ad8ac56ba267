using TrainingService.Training.Adapters;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Runs;

/// <summary>Ends that the machine brings about: no disk, no memory, and another machine that goes on.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class RunFailureTests
{
    [Fact]
    public void A_full_disk_names_the_folder_and_leaves_no_half_checkpoint()
    {
        Assert.SkipUnless(File.Exists("/dev/full"), "needs /dev/full");
        using var folder = new RunFolder();
        Directory.CreateDirectory(folder.In("work", "metrics"));
        File.CreateSymbolicLink(folder.In("work", "metrics", "data_order.csv"), "/dev/full");   // where the first write to it fails

        var error = Assert.Throws<TrainingException>(() => folder.Run(Spec(folder)));

        Assert.Equal(FailureCode.Storage, error.Code);
        Assert.Contains($"'{folder.In("work")}' is full", error.Message);
        Assert.Matches("the run needs about [0-9.]+ MiB", error.Message);
        Assert.False(Directory.Exists(folder.In("work", "checkpoints")) && Directory.EnumerateFileSystemEntries(folder.In("work", "checkpoints")).Any());
    }

    [Fact]
    public void An_allocation_that_fails_says_what_is_needed_and_what_there_is()
    {
        using var folder = new RunFolder();
        var error = Assert.Throws<TrainingException>(() => folder.Run(Spec(folder), report: report =>
        {
            if (report is StepReport)
            {
                empty(1L << 50, dtype: ScalarType.Float32).Dispose();   // 4 PiB: more than an address space holds
            }
        }));

        Assert.Equal(FailureCode.OutOfMemory, error.Code);
        Assert.Equal("schedule.batch_size", error.Param);
        Assert.Matches("about [0-9.]+ MiB are needed \\(estimated\\) and this machine has [0-9.]+ GiB", error.Message);
    }

    [Fact]
    public void A_run_that_cannot_fit_is_refused_before_anything_is_loaded()
    {
        using var folder = new RunFolder();
        Directory.CreateDirectory(folder.In("new"));
        var config = File.ReadAllText(SharedData.Path("golden", "models", "llama_untied", "config.json"));
        File.WriteAllText(
            folder.In("new", "config.json"),
            config.Replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1000").Replace("\"intermediate_size\": 96", "\"intermediate_size\": 1000000"));
        var spec = Spec(folder) with { Model = folder.In("new"), Objective = new PretrainingConfig(), Adapter = new FullConfig() };

        var error = Assert.Throws<TrainingException>(() => folder.Run(spec));

        Assert.Equal(FailureCode.OutOfMemory, error.Code);
        Assert.Matches("does not fit into memory: about [0-9.]+ GiB are needed", error.Message);
    }

    [Fact]
    public void A_checkpoint_alone_is_enough_for_another_machine()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder);
        var done = folder.Run(spec, "unbroken");
        var best = (int)done.Metrics["eval/best_step"];
        Assert.NotEqual(done.Steps, best);
        var control = new RunControl();
        Assert.Throws<RunStoppedException>(() => folder.Run(spec, "broken", control, report =>
        {
            if (report is StepReport { Step: var step } && step == best + 3)
            {
                control.RequestCheckpointAndStop();
            }
        }));

        Copy(folder.In("broken", "checkpoints", $"step-{best + 3:D6}"), folder.In("elsewhere", "checkpoints", $"step-{best + 3:D6}"));
        folder.Run(spec, "elsewhere");

        var files = Files(folder.In("unbroken")).Where(file => !file.StartsWith("checkpoints", StringComparison.Ordinal)).ToArray();
        Assert.Equal(files, Files(folder.In("elsewhere")).Where(file => !file.StartsWith("checkpoints", StringComparison.Ordinal)));
        Assert.Contains("spectra/step-000002/spectra.json", files);
        foreach (var file in files.Where(file => Path.GetFileName(file) is not ("metrics.jsonl" or "manifest.json")))
        {
            Assert.True(
                File.ReadAllBytes(folder.In("unbroken", file)).AsSpan().SequenceEqual(File.ReadAllBytes(folder.In("elsewhere", file))), file);
        }
    }

    [Fact]
    public void A_run_whose_checkpoints_are_all_bad_starts_anew_and_says_so()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder);
        folder.Run(spec, "unbroken");
        folder.Run(spec, "broken");
        foreach (var state in Directory.EnumerateFiles(folder.In("broken", "checkpoints"), "state.json", SearchOption.AllDirectories))
        {
            File.WriteAllText(state, "");
        }

        folder.Run(spec, "broken");

        Assert.Contains(folder.Reports, report => report is WarningReport { Message: "No checkpoint is whole; the run starts anew." });
        Assert.Equal(1, folder.Reports.OfType<StepReport>().First().Step);
        Assert.Equal(Files(folder.In("unbroken")), Files(folder.In("broken")));
        Assert.Equal(File.ReadAllBytes(folder.In("unbroken", "metrics", "results.csv")), File.ReadAllBytes(folder.In("broken", "metrics", "results.csv")));
    }

    /// <summary>At this rate the held-out loss rises from the first measurement on, and the run stops early.</summary>
    private static TrainingSpec Spec(RunFolder folder) => new()
    {
        Model = SharedData.Path("golden", "models", "llama_untied"),
        Data = new() { Train = folder.TokenRows("rows.jsonl", 20), ValidationSplit = 0.2, MaxLength = 16, Packing = false },
        Adapter = new LoraConfig { Rank = 4, Dropout = 0.1 },
        Optimizer = new AdamWConfig { LearningRate = 0.3 },
        Schedule = new() { MaxSteps = 40, BatchSize = 4, WarmupRatio = 0, LrScheduler = LrScheduler.Constant },
        Evaluation = new() { EverySteps = 2, EarlyStoppingPatience = 2 },
        Checkpoints = new() { EverySteps = 100, Keep = 1 },
        Spectra = new() { EverySteps = 2 },
    };

    private static void Copy(string from, string to)
    {
        foreach (var file in Directory.EnumerateFiles(from, "*", SearchOption.AllDirectories))
        {
            var target = Path.Combine(to, Path.GetRelativePath(from, file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(file, target);
        }
    }

    private static string[] Files(string folder) =>
        [.. Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Select(path => Path.GetRelativePath(folder, path)).Order()];
}
