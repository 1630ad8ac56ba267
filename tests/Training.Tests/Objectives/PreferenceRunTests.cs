using TrainingService.Training.Adapters;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tests.Runs;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Whole runs on preferences, with a pretrained model and generated rows.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class PreferenceRunTests
{
    private static readonly string[] Names = ["Tom", "Lily", "Ben", "Mia", "Sam", "Anna", "Max", "Sue"];
    private static readonly string[] Things = ["ball", "dog", "car", "hat", "bird", "cake", "tree", "boat", "fish", "book"];
    private static readonly string[] Places = ["in the park", "at home", "by the big tree"];

    [Theory]
    [InlineData("dpo-precomputed")]
    [InlineData("dpo-switched")]
    [InlineData("dpo-full")]
    [InlineData("dpo-pissa-nf4")]
    [InlineData("kto")]
    [InlineData("kto-full")]
    [InlineData("orpo")]
    [InlineData("simpo")]
    public void A_run_that_was_stopped_ends_in_the_bytes_of_one_that_was_not(string name)
    {
        using var folder = new RunFolder();
        var spec = Spec(folder, name);
        var file = spec.Adapter is FullConfig ? "model/model.safetensors" : "adapter/adapter_model.safetensors";
        folder.Run(spec, "unbroken");
        var losses = folder.Losses;
        Assert.Equal(
            name is "dpo-precomputed" or "dpo-full" or "dpo-pissa-nf4" or "kto-full", folder.Reports.Contains(new PhaseReport("reference")));

        var control = new RunControl();
        Assert.Throws<RunStoppedException>(() => folder.Run(spec, "broken", control, report =>
        {
            if (report is StepReport { Step: 3 })
            {
                control.RequestCheckpointAndStop();
            }
        }));
        folder.Run(spec, "broken");

        Assert.Equal(6, losses.Count);
        Assert.Equal(losses.Skip(3), folder.Losses);
        Assert.Equal(File.ReadAllBytes(folder.In("unbroken", file)), File.ReadAllBytes(folder.In("broken", file)));
        Assert.Equal(File.ReadAllLines(folder.In("unbroken", "metrics", "results.csv")), File.ReadAllLines(folder.In("broken", "metrics", "results.csv")));
    }

    [Theory]
    [InlineData("dpo")]
    [InlineData("kto")]
    public void A_reference_computed_before_training_gives_the_run_of_one_that_is_switched_to(string name)
    {
        using var folder = new RunFolder();
        var spec = Spec(folder, name);
        folder.Run(spec, "switched");
        var switched = folder.Losses;

        folder.Run(spec with { Objective = ((ReferencedConfig)spec.Objective) with { PrecomputeReference = true } }, "computed");

        Assert.Equal(switched, folder.Losses, (a, b) => Math.Abs(a - b) <= 1e-4 * Math.Abs(a));
    }

    [Fact]
    public void A_run_reports_what_TRL_calls_rewards_and_log_probabilities()
    {
        using var folder = new RunFolder();

        var done = folder.Run(Spec(folder, "dpo"));

        var first = folder.Reports.OfType<StepReport>().First();
        Assert.Equal(
            ["train/rewards/accuracies", "train/rewards/chosen", "train/rewards/rejected", "train/rewards/margins", "train/logps/chosen", "train/logps/rejected"],
            first.Figures!.Keys);
        Assert.Equal(0, first.Accuracy);
        Assert.Equal(MathF.Log(2), (float)first.Loss);
        Assert.Contains("eval/rewards/accuracies", done.Metrics.Keys);
        Assert.Equal(0, done.Metrics["eval/rewards/accuracies_before"]);
        Assert.StartsWith("1,0.6931471824645996,0,", File.ReadLines(folder.In("work", "metrics", "results.csv")).ElementAt(2), StringComparison.Ordinal);
    }

    /// <summary>
    /// Stories that end well are chosen over the same ones that end badly. Held out: things that no training pair has. Plain text: sentences of
    /// the kind that the model was trained on.
    /// </summary>
    [Fact]
    public void Dpo_raises_the_margin_on_held_out_pairs_and_leaves_plain_text_as_it_was()
    {
        using var folder = new RunFolder();
        var text = folder.Rows("text.jsonl", Text().Select(line => new { text = line }));
        double LossOnText(string? adapter)
        {
            folder.Run(new()
            {
                Model = SharedData.Path("data", "models", "stories260K"),
                Data = new() { Train = text, Validation = text, MaxLength = 128 },
                Objective = new PretrainingConfig(),
                Adapter = new LoraConfig { From = adapter },
                Optimizer = new SgdConfig { LearningRate = 1e-12 },
                Schedule = new() { MaxSteps = 1, BatchSize = 12, WarmupRatio = 0 },
                Spectra = new() { Enabled = false },
                Precision = Precision.Float32,
            }, adapter is null ? "text-before" : "text-after");
            return folder.Reports.OfType<MetricReport>().First().Values["eval/loss"];
        }

        var done = folder.Run(new()
        {
            Model = SharedData.Path("data", "models", "stories260K"),
            Data = new() { Train = folder.Rows("train.jsonl", Pairs(Things[..7])), Validation = folder.Rows("held.jsonl", Pairs(Things[7..])), MaxLength = 128 },
            Objective = new DpoConfig(),
            Adapter = new LoraConfig { Rank = 8 },
            Optimizer = new AdamWConfig { LearningRate = 3e-4 },
            Schedule = new() { MaxSteps = 24, BatchSize = 8 },
            Evaluation = new() { EverySteps = 24 },
            Spectra = new() { Enabled = false },
            Precision = Precision.Float32,
            Seed = 3,
        }).Metrics;

        var (before, after) = (LossOnText(null), LossOnText(folder.In("work", "adapter")));
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"margin {done["eval/rewards/margins_before"]:F4} -> {done["eval/rewards/margins"]:F4}, accuracy {done["eval/rewards/accuracies"]:P0}, "
            + $"loss {done["eval/loss_before"]:F4} -> {done["eval/loss"]:F4}, text {before:F4} -> {after:F4}");
        Assert.Equal(0, done["eval/rewards/margins_before"], 1e-6);
        Assert.True(done["eval/rewards/margins"] > 0.5, $"{done["eval/rewards/margins"]}");
        Assert.True(done["eval/rewards/accuracies"] > 0.9, $"{done["eval/rewards/accuracies"]}");
        Assert.True(after < 1.05 * before, $"{before} {after}");
    }

    private static TrainingSpec Spec(RunFolder folder, string name) => new()
    {
        Model = SharedData.Path("data", "models", "stories260K"),
        Data = new() { Train = folder.Rows("rows.jsonl", Pairs(Things[..3])), ValidationSplit = 0.2, MaxLength = 128 },
        Objective = name.Split('-')[0] switch
        {
            "dpo" => new DpoConfig { PrecomputeReference = name == "dpo-precomputed" },
            "kto" => new KtoConfig(),
            "orpo" => new OrpoConfig(),
            _ => new SimpoConfig(),
        },
        Adapter = name.EndsWith("full", StringComparison.Ordinal) ? new FullConfig()
            : name == "dpo-pissa-nf4" ? new PissaConfig { Rank = 4, QuantizationIterations = 2 }
            : new LoraConfig { Rank = 4, Dropout = name.StartsWith("kto", StringComparison.Ordinal) ? 0.2 : 0 },
        Quantization = name == "dpo-pissa-nf4" ? new Nf4Config() : null,
        Optimizer = new AdamWConfig { LearningRate = 1e-3 },
        Schedule = new() { MaxSteps = 6, BatchSize = 2, GradientAccumulationSteps = 2 },
        Evaluation = new() { EverySteps = 3 },
        Spectra = new() { Enabled = false },
        Precision = Precision.Float32,
        Seed = 7,
    };

    private static IEnumerable<object> Pairs(string[] things) =>
        from name in Names
        from thing in things
        let place = Places[(name.Length + thing.Length) % Places.Length]
        select new
        {
            prompt = $"Once upon a time, {name} had a {thing}. One day, {name} was {place} with the {thing}.",
            chosen = $" {name} was very happy and they played all day.",
            rejected = $" {name} was very sad and did not want to play.",
        };

    private static IEnumerable<string> Text() =>
        from name in Names
        from thing in Things[..3]
        select $"{name} saw a big {thing}. It was red and blue. \"Look, Mom! Can I have it?\" said {name}. Mom smiled and said, \"Yes, but you must share it with your friends.\"";
}
