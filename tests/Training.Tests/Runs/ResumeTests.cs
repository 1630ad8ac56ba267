using TrainingService.Training.Adapters;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Quantization;

namespace TrainingService.Training.Tests.Runs;

[Collection(nameof(RandomNumbers))]
public sealed class ResumeTests
{
    [Theory]
    [InlineData("lora", "adamw")]
    [InlineData("lora", "sgd")]
    [InlineData("lora-nf4", "adamw")]
    [InlineData("corda", "adamw")]
    [InlineData("eva", "adamw")]
    [InlineData("lora_sb", "adamw")]
    [InlineData("adalora", "adamw")]
    [InlineData("increlora", "adamw")]
    [InlineData("sara", "adamw")]
    [InlineData("diffora", "adamw")]
    [InlineData("pissa-nf4", "adamw")]
    [InlineData("loftq", "adamw")]
    [InlineData("lq_lora", "adamw")]
    [InlineData("kind", "adamw")]
    [InlineData("full", "adamw")]
    [InlineData("full-bfloat16", "adamw")]
    public void A_run_that_was_stopped_ends_in_the_bytes_of_one_that_was_not(string adapter, string optimizer)
    {
        using var folder = new RunFolder();
        var spec = Spec(folder, adapter, optimizer);
        var file = spec.Adapter is FullConfig ? "model/model.safetensors" : "adapter/adapter_model.safetensors";
        folder.Run(spec, "unbroken");
        var losses = folder.Losses;

        var control = new RunControl();
        var stopped = Assert.Throws<RunStoppedException>(() => folder.Run(spec, "broken", control, report =>
        {
            if (report is StepReport { Step: 3 })
            {
                control.RequestCheckpointAndStop();
            }
        }));
        Assert.Equal(3, stopped.Step);
        Assert.False(File.Exists(folder.In("broken", "manifest.json")));
        folder.Run(spec, "broken");

        Assert.Equal(losses.Skip(3), folder.Losses);
        Assert.Equal(File.ReadAllBytes(folder.In("unbroken", file)), File.ReadAllBytes(folder.In("broken", file)));
        Assert.Equal(Lines(folder, "unbroken"), Lines(folder, "broken"));
    }

    [Fact]
    public void A_torn_checkpoint_is_passed_over_for_the_one_before()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder, "lora", "adamw") with { Checkpoints = new() { EverySteps = 2, Keep = 2 } };
        folder.Run(spec, "unbroken");
        var control = new RunControl();
        Assert.Throws<RunStoppedException>(() => folder.Run(spec, "broken", control, report =>
        {
            if (report is StepReport { Step: 5 })
            {
                control.RequestCheckpointAndStop();
            }
        }));

        var torn = folder.In("broken", "checkpoints", "step-000005", "optimizer.safetensors");
        File.WriteAllBytes(torn, File.ReadAllBytes(torn)[..^7]);
        folder.Run(spec, "broken");

        Assert.Contains(folder.Reports, report => report is WarningReport { Message: var message } && message.Contains("step 5"));
        Assert.Equal(5, folder.Reports.OfType<StepReport>().First().Step);
        Assert.Equal(
            File.ReadAllBytes(folder.In("unbroken", "adapter", "adapter_model.safetensors")),
            File.ReadAllBytes(folder.In("broken", "adapter", "adapter_model.safetensors")));
    }

    [Fact]
    public void Checkpoints_of_another_spec_are_refused()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder, "lora", "adamw");
        folder.Run(spec);

        var error = Assert.Throws<TrainingException>(() => folder.Run(spec with { Seed = 8 }));
        Assert.Equal(FailureCode.InvalidSpec, error.Code);
    }

    [Fact]
    public void An_adapter_starts_by_the_rows_that_it_is_shown()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder, "corda", "adamw") with { Data = new() { Train = folder.TokenRows("rows.jsonl", 24), Shuffle = false, MaxLength = 24 } };
        byte[] Trained(string work, string? calibration)
        {
            folder.Run(spec with { Data = spec.Data with { Calibration = calibration } }, work);
            return File.ReadAllBytes(folder.In(work, "adapter", "adapter_model.safetensors"));
        }

        var own = Trained("own", null);

        Assert.Equal(own, Trained("same", folder.TokenRows("same.jsonl", 24)));
        Assert.NotEqual(own, Trained("other", folder.TokenRows("other.jsonl", 24, vocabulary: 90)));
    }

    [Fact]
    public void Rows_to_show_that_are_in_error_are_named_with_their_member()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder, "eva", "adamw");
        var shown = folder.Rows("shown.jsonl", [new { input_ids = new[] { 1, 2, 100_000 }, labels = new[] { 1, 2, 3 } }]);

        var error = Assert.Throws<TrainingException>(() => folder.Run(spec with { Data = spec.Data with { Calibration = shown } }));

        Assert.StartsWith("data.calibration", error.Param, StringComparison.Ordinal);
    }

    [Fact]
    public void A_row_of_a_class_that_the_adapter_does_not_have_ends_the_run_before_it_starts()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder, "kind", "adamw") with { Adapter = new KindConfig { Classes = ["a", "b"], Learngenes = 3, Tailors = 2 } };

        var error = Assert.Throws<TrainingException>(() => folder.Run(spec));

        Assert.Equal((FailureCode.InvalidData, "data.train:3"), (error.Code, error.Param));
        Assert.StartsWith("data.train row 3, class: is 'c', which is none of adapter.classes ('a', 'b')", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(folder.Reports, report => report is StepReport);
    }

    [Fact]
    public void Rows_for_an_adapter_that_looks_at_none_are_refused() => Assert.Contains(
        SpecJson.Parse("""{"model": "m", "data": {"train": "t", "calibration": "c"}, "adapter": {"type": "lora"}}""").Errors,
        error => error.Path == "data.calibration");

    /// <summary>Dropout, packing, accumulation and shuffling are all on, and an epoch ends within the run.</summary>
    private static TrainingSpec Spec(RunFolder folder, string adapter, string optimizer) => new()
    {
        Model = SharedData.Path("golden", "models", "llama_untied"),
        Data = new() { Train = folder.TokenRows("rows.jsonl", 24, classes: adapter == "kind" ? ["a", "b", "c"] : null), ValidationSplit = 0.2, MaxLength = 24, Packing = true },
        Adapter = adapter switch
        {
            "corda" => new CordaConfig { Rank = 4 },   // these three look at rows before they start, and not again before they go on
            "eva" => new EvaConfig { Rank = 4 },
            "lora_sb" => new LoraSbConfig { Rank = 4 },
            "adalora" => new AdaLoraConfig { InitialRank = 4, TargetRank = 2, FinalSteps = 2, Dropout = 0.2 },   // ranks fall and rise on both sides of the stop
            "increlora" => new IncreLoraConfig { TargetRank = 3, MaxRank = 6, Increment = 1, TopLayers = 9, Dropout = 0.2 },
            "sara" => new SaraConfig { Share = 0.1, RefreshAt = 0.3, NuclearNorm = 1e-4 },
            "diffora" => new DifforaConfig { Rank = 4, CalibrationRows = 10 },
            "pissa-nf4" => new PissaConfig { Rank = 4, QuantizationIterations = 2 },   // the codes of these three are the method's own
            "loftq" => new LoftqConfig { Rank = 4, QuantizationIterations = 2 },
            "lq_lora" => new LqLoraConfig { Rank = 4, CalibrationRows = 5 },
            "kind" => new KindConfig { Classes = ["c", "a", "b"], Learngenes = 3, Tailors = 2 },
            "full" or "full-bfloat16" => new FullConfig(),
            _ => new LoraConfig { Rank = 4, Dropout = 0.2 },
        },
        Optimizer = optimizer == "sgd" ? new SgdConfig { LearningRate = 0.1, Momentum = 0.9 } : new AdamWConfig { LearningRate = 1e-3 },
        Schedule = new() { MaxSteps = 8, BatchSize = 2, GradientAccumulationSteps = 2 },
        Quantization = adapter.EndsWith("nf4", StringComparison.Ordinal) ? new Nf4Config() : null,
        Precision = adapter.EndsWith("bfloat16", StringComparison.Ordinal) ? Precision.Bfloat16 : Precision.Float32,
        Evaluation = new() { EverySteps = 4 },
        Spectra = new() { Enabled = false },
        Seed = 7,
    };

    private static string[] Lines(RunFolder folder, string work) => File.ReadAllLines(folder.In(work, "metrics", "results.csv"));
}
