using System.Text.Json;
using TorchSharp;
using TrainingService.Tests;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Dmoe;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Scoring;
using TrainingService.Training.Tests.Data;
using TrainingService.Training.Tests.Runs;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>The double-layer mixture of experts: rows, what joins experts, and the phases as one run.</summary>
[Collection(nameof(RandomNumbers))]
public class DmoeTests
{
    private static readonly string Model = GeneratedFile.Locate("samples", "model");
    private static readonly string[] Categories = ["warm", "cold"];
    private static readonly string[] Orderly = ["warm", "cold", "dark", "loud"];

    // W₁·z + b₁ = (1, -2) + (0.5, 0) = (1.5, -2); PReLU with slope ¼ gives (1.5, -0.5); 2·1.5 - 0.5 + 0.1 = 2.6.
    [Fact]
    public void Experts_are_joined_by_two_layers_and_a_bend()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var aggregation = DmoeAggregation.New(width: 2, experts: 1, seed: 3, CPU);
        var values = new Dictionary<string, float[]> { ["0.weight"] = [1, 0, 0, 1], ["0.bias"] = [0.5f, 0], ["2.weight"] = [2, 1], ["2.bias"] = [0.1f] };
        foreach (var tensor in aggregation.Tensors.Where(tensor => values.ContainsKey(tensor.Name)))
        {
            tensor.Parameter.copy_(torch.tensor(values[tensor.Name]).reshape(tensor.Parameter.shape));
        }

        Assert.Equal(2.6f, aggregation.Rewards(torch.tensor(new[] { 1f, -2f }).reshape(1, 2)).item<float>(), 1e-6f);
    }

    [Fact]
    public void Rows_are_compared_as_wholes_and_by_capabilities()
    {
        using var file = new TextFile("rows.jsonl",
            """{"prompt": "Q", "chosen": "good", "rejected": "bad", "category": "a", "labels": {"x": 1, "y": 2, "z": "tie"}}""" + "\n"
            + """{"prompt": "R", "chosen": "good", "rejected": "bad", "category": "b", "capability": "y"}""" + "\n"
            + """{"prompt": "S", "chosen": "good", "rejected": "bad", "category": "b", "capability": null}""" + "\n");

        using var data = file.Prepare(use: RowUse.Capabilities);

        Assert.Equal(
            [("Qgood", "a", null), ("Qgood", "a", "x"), ("Qbad", "a", "y"), ("Rgood", "b", "y"), ("Sgood", "b", null)],
            data.Train.Select(pair => (new CharacterTokenizer().Decode(pair.InputIds[..pair.Ends![0]]), pair.Category!, pair.Capability)));
    }

    [Theory]
    [InlineData("""{"prompt": "Q", "chosen": "good", "rejected": "bad", "category": "a", "labels": {"x": 3}}""", "labels.x: must be 1, 2 or \"tie\", found 3")]
    [InlineData("""{"prompt": "Q", "chosen": "good", "rejected": "bad", "category": "a", "labels": {"x": 1}, "capability": "x"}""", "not beside a capability")]
    [InlineData("""{"prompt": "Q", "chosen": "good", "rejected": "bad"}""", "'category'")]
    public void A_row_that_does_not_say_what_it_must_is_refused(string row, string message)
    {
        using var file = new TextFile("rows.jsonl", row + "\n");

        var error = Assert.Throws<TrainingException>(() => { file.Prepare(use: RowUse.Capabilities).Dispose(); });

        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Each_phase_has_rows_of_its_own()
    {
        List<Example> rows =
        [
            .. Enumerable.Range(1, 400).Select(row => new Example([1, 2, 3, 1, 2, 4], [-100, -100, 3, -100, -100, 4], row)
            {
                Ends = [3, 6],
                Category = Categories[row % 2],
                Capability = row % 4 < 2 ? null : "x",
            }),
        ];
        List<int> Rows(DmoePhase phase, bool isTraining = true) => [.. phase.RowsOf(rows, baseShare: 0.6, isTraining).Select(row => row.Row)];

        var (first, rest) = (Rows(new(DmoeStage.Base, "warm")), Rows(new(DmoeStage.Aggregation, "warm")));

        Assert.Empty(first.Intersect(rest));
        Assert.Equal(rows.Where(row => row.Category == "warm" && row.Capability is null).Select(row => row.Row), first.Concat(rest).Order());
        Assert.InRange(first.Count, 45, 75);   // 0.6 of 100
        Assert.Equal(100, Rows(new(DmoeStage.Aggregation, "warm"), isTraining: false).Count);
        Assert.Equal(100, Rows(new(DmoeStage.Expert, "cold", "x")).Count);
        var prompts = new DmoePhase(DmoeStage.Router).RowsOf(rows, 0.6, isTraining: true);
        Assert.Equal(200, prompts.Count);
        Assert.Equal([1, 2], prompts[0].InputIds);
    }

    // One model sees the same whole comparisons for as many steps as all phases together.
    [Fact]
    public void It_beats_one_model_where_categories_contradict_each_other()
    {
        using var folder = new RunFolder();
        var spec = Orders(folder, steps: 8);

        var several = folder.Run(spec, "several");
        var names = folder.Reports.OfType<PhaseReport>().Select(phase => phase.Phase).ToList();
        var steps = folder.Reports.OfType<StepReport>().ToList();
        var one = folder.Run(
            spec with { Objective = new RewardConfig(), Data = spec.Data with { Train = folder.In("wholes.jsonl") }, Schedule = spec.Schedule with { MaxSteps = steps.Count } }, "one");

        Assert.InRange(several.Metrics["eval/router_accuracy"], 0.99, 1);
        Assert.InRange(several.Metrics["eval/accuracy"], 0.9, 1);
        Assert.InRange(one.Metrics["eval/accuracy"], 0, several.Metrics["eval/accuracy"] - 0.2);
        Assert.Equal(
            ["tokenizing", "router", .. from category in Orderly from phase in new[] { "base/{0}", "experts/{0}/order", "aggregation/{0}" } select string.Format(null, phase, category), "evaluating"],
            names);
        Assert.Equal(Enumerable.Range(1, 13 * 8), steps.Select(step => step.Step));
        Assert.All(steps, step => Assert.Equal(steps.Count, step.TotalSteps));
        AssertScoresTheSame(folder, several.Metrics["eval/margin"]);
    }

    /// <summary>The artifact alone gives the rewards that the run measured.</summary>
    private static void AssertScoresTheSame(RunFolder folder, double margin)
    {
        var work = folder.In("several");
        Assert.True(Manifest.Verify(work, out var problem), problem);
        var result = Path.Combine(work, "adapter");
        Assert.True(DmoeScorer.IsIn(result));
        Assert.Equal(
            ["adapter_config.json", "adapter_model.safetensors"],
            Directory.GetFiles(Path.Combine(result, "experts", "cold", "order"), "adapter_*").Select(path => Path.GetFileName(path)).Order());
        Assert.False(Directory.Exists(Path.Combine(work, ".done")) || Directory.Exists(Path.Combine(work, ".phase")));
        using var scope = NewDisposeScope();
        using var scorer = new DmoeScorer(result, Model, ScalarType.Float32, CPU);
        var tokenizer = Tokenizer.Load(Model);
        var leads = File.ReadLines(folder.In("held.jsonl")).Select(line => JsonElement.Parse(line)).Select(row =>
        {
            var scores = scorer.Score(tokenizer, row.GetProperty("prompt").GetString()!, [row.GetProperty("chosen").GetString()!, row.GetProperty("rejected").GetString()!]);
            Assert.Equal(row.GetProperty("category").GetString(), scores[0].Category);
            return scores[0].Reward - scores[1].Reward;
        });
        Assert.Equal(margin, leads.Average(), 1e-4);

        var asked = ScoreInput.Read(JsonElement.Parse("""{"prompt": "Message: a dark day 1.", "responses": [" red", " pink"]}"""), "row");
        var answered = Assert.Single(scorer.Score(tokenizer, [asked]));
        Assert.Equal(["dark", "dark"], answered.Select(score => score.Category));
        File.WriteAllText(folder.In("asked.jsonl"), """{"prompt": "Message: a dark day 1.", "responses": [" red", " pink"]}""" + "\n");
        var (exit, lines, errors) = WorkerProcess.Run(["score", "--model", Model, "--adapter", result, "--input", folder.In("asked.jsonl")]);
        Assert.True(exit == 0, errors);
        var told = JsonElement.Parse(Assert.Single(lines)).GetProperty("scores").EnumerateArray().ToList();
        Assert.Equal(answered.Select(score => score.Reward), told.Select(score => score.GetProperty("reward").GetSingle()), (left, right) => Math.Abs(left - right) < 1e-5);
        Assert.Equal("dark", told[0].GetProperty("category").GetString());
        Assert.Equal(
            scorer.Score(tokenizer, "Message: a dark day 1.", [" red", " pink"]).Select(score => (float)score.Reward), answered.Select(score => score.Reward));
    }

    [Fact]
    public void A_run_that_was_stopped_in_any_phase_ends_in_the_bytes_of_one_that_was_not()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder, steps: 2) with { Checkpoints = new() { EverySteps = 1 } };
        folder.Run(spec, "unbroken");
        var total = folder.Reports.OfType<StepReport>().Count();

        foreach (var stop in new[] { 3, 6, 9 })   // within a start, an expert, and what joins the first experts
        {
            var control = new RunControl();
            var stopped = Assert.Throws<RunStoppedException>(() => folder.Run(spec, "broken", control, report =>
            {
                if (report is StepReport step && step.Step == stop)
                {
                    control.RequestCheckpointAndStop();
                }
            }));
            Assert.InRange(stopped.Step, Math.Max(1, stop - 2), stop);
        }

        folder.Run(spec, "broken");
        Assert.InRange(folder.Reports.OfType<StepReport>().First().Step, 9, 11);
        Assert.Equal(total, folder.Reports.OfType<StepReport>().Last().Step);
        foreach (var file in Directory.GetFiles(folder.In("unbroken"), "*.safetensors", SearchOption.AllDirectories)
            .Select(path => Path.GetRelativePath(folder.In("unbroken"), path)).Where(path => !path.StartsWith("checkpoints", StringComparison.Ordinal)))
        {
            Assert.True(File.ReadAllBytes(folder.In("unbroken", file)).SequenceEqual(File.ReadAllBytes(folder.In("broken", file))), file);
        }

        Assert.Equal(File.ReadAllLines(folder.In("unbroken", "metrics", "results.csv")), File.ReadAllLines(folder.In("broken", "metrics", "results.csv")));
    }

    [Fact]
    public void Rows_of_an_unknown_category_end_the_run_before_it_trains()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder, steps: 1);

        var error = Assert.Throws<TrainingException>(() => folder.Run(spec with
        {
            Objective = (DmoeRewardConfig)spec.Objective with { Categories = ["warm", "hot"] },
        }));

        Assert.Equal("data.train:2", error.Param);
        Assert.Contains("category: is 'cold', and objective.categories names 'warm', 'hot'", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(folder.Reports, report => report is StepReport);
    }

    [Fact]
    public void Its_steps_are_not_known_before_its_rows()
    {
        using var folder = new RunFolder();

        var estimate = Estimate.For(Spec(folder, steps: 3), HuggingFaceFolder.ReadConfig(Model), new(Rows: 100, Tokens: 1000));

        Assert.Null(estimate.Steps);
        Assert.False(estimate.StepsAreExact);
    }

    [Theory]
    [InlineData("""{"type": "dmoe_reward", "categories": ["a"], "capabilities": []}""", "{}", "objective.capabilities")]
    [InlineData("""{"type": "dmoe_reward", "categories": ["../a"], "capabilities": ["b"]}""", "{}", "objective.categories")]
    [InlineData("""{"type": "dmoe_reward", "categories": ["a", "a"], "capabilities": ["b"]}""", "{}", "objective.categories")]
    [InlineData("""{"type": "dmoe_reward", "categories": ["a"], "capabilities": ["b"]}""", """{"type": "full"}""", "objective")]
    public void A_spec_that_cannot_run_is_refused(string objective, string adapter, string path)
    {
        var errors = SpecJson.Parse($$"""{"model": "m", "data": {"train": "t"}, "objective": {{objective}}, "adapter": {{adapter.Replace("{}", """{"type": "lora"}""")}}}""").Errors;

        Assert.Contains(errors, error => error.Path == path);
    }

    /// <summary>Even rows are warm, odd ones cold. The warm want red and the cold blue, and both want left: what is said of the colour contradicts itself.</summary>
    private static (string Prompt, string Chosen, string Rejected) Pair(int number)
    {
        var (red, left) = (number % 2 == 0, number / 2 % 2 == 0);
        var (good, bad) = red ? ("red", "blue") : ("blue", "red");
        return ($"{(number % 2 == 0 ? "Message: a warm" : "Record: the cold")} day {number % 7}.", $" {good} {(left ? "left" : "right")}", $" {bad} {(left ? "left" : "right")}");
    }

    private static object Whole(int number)
    {
        var (prompt, chosen, rejected) = Pair(number);
        return new { prompt, chosen, rejected, category = Categories[number % 2] };
    }

    private static object Labelled(int number)
    {
        var (prompt, chosen, rejected) = Pair(number);
        var colour = chosen.Split(' ')[1];
        return number % 3 == 0
            ? new { prompt, chosen, rejected, category = Categories[number % 2], capability = "colour" }
            : new { prompt, chosen = $" {colour} left", rejected = $" {colour} right", category = Categories[number % 2], capability = "side" };
    }

    /// <summary>Colours in the order of preference of each of four categories: two orders, and each of them from its end. What is said of any two colours cancels.</summary>
    private static TrainingSpec Orders(RunFolder folder, int steps)
    {
        string[] colours = ["red", "blue", "green", "white", "black", "silver", "gold", "pink"];
        int[] order = [3, 6, 0, 5, 1, 7, 2, 4];
        var pairs =
            (from category in Enumerable.Range(0, 4)
             from better in Enumerable.Range(0, 8)
             from worse in Enumerable.Range(better + 1, 7 - better)
             let first = category < 2 ? (better, worse) : (order[better], order[worse])
             let pair = category % 2 == 0 ? first : (first.Item2, first.Item1)
             from day in Enumerable.Range(1, 2)
             select (
                 IsHeld: ((3 * better) + worse) % 4 == 0, Prompt: $"Message: a {Orderly[category]} day {day}.", Chosen: $" {colours[pair.Item1]}", Rejected: $" {colours[pair.Item2]}",
                 Category: Orderly[category])).ToList();
        var wholes = pairs.Where(pair => !pair.IsHeld).Select(pair => (object)new { prompt = pair.Prompt, chosen = pair.Chosen, rejected = pair.Rejected, category = pair.Category }).ToList();
        var byOrder = pairs.Where(pair => !pair.IsHeld)
            .Select(pair => (object)new { prompt = pair.Prompt, chosen = pair.Chosen, rejected = pair.Rejected, category = pair.Category, capability = "order" });
        folder.Rows("wholes.jsonl", wholes);
        return Spec(folder, steps) with
        {
            Data = new()
            {
                Train = folder.Rows("orders.jsonl", [.. wholes, .. byOrder]),
                Validation = folder.Rows("held.jsonl", pairs.Where(pair => pair.IsHeld)
                    .Select(pair => new { prompt = pair.Prompt, chosen = pair.Chosen, rejected = pair.Rejected, category = pair.Category })),
                MaxLength = 64,
            },
            Objective = new DmoeRewardConfig { Categories = Orderly, Capabilities = ["order"] },
            Adapter = new LoraConfig { Rank = 4 },
            Optimizer = new AdamWConfig { LearningRate = 1e-3 },
        };
    }

    private static TrainingSpec Spec(RunFolder folder, int steps)
    {
        folder.Rows("wholes.jsonl", Enumerable.Range(0, 64).Select(Whole));
        return new()
        {
            Model = Model,
            Data = new()
            {
                Train = folder.Rows("rows.jsonl", [.. Enumerable.Range(0, 64).Select(Whole), .. Enumerable.Range(100, 72).Select(Labelled)]),
                Validation = folder.Rows("held.jsonl", Enumerable.Range(200, 24).Select(Whole)),
                MaxLength = 64,
            },
            Objective = new DmoeRewardConfig { Categories = Categories, Capabilities = ["colour", "side"] },
            Adapter = new LoraConfig { Rank = 2, Dropout = 0.1 },
            Schedule = new() { MaxSteps = steps, BatchSize = 4 },
            Spectra = new() { Enabled = false },
            Seed = 7,
        };
    }
}
