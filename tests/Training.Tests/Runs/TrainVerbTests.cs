using System.Text.Json;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Tests.Runs;

/// <summary>The verb <c>train</c> as a supervisor, or a person, meets it: a process with files, lines and an exit code.</summary>
public sealed class TrainVerbTests
{
    [Fact]
    public void A_good_spec_ends_in_a_done_line_and_exit_code_zero()
    {
        using var folder = new RunFolder();
        var (exit, lines, _) = Train(folder, Spec(folder));

        Assert.Equal(0, exit);
        var reports = lines.Select(line => JsonSerializer.Deserialize<Report>(line, SpecJson.Options)!).ToArray();
        Assert.Equal([1, 2], reports.OfType<StepReport>().Select(step => step.Step));
        Assert.IsType<DoneReport>(reports[^1]);
        Assert.True(Manifest.Verify(folder.In("work"), out var problem), problem);
    }

    [Theory]
    [InlineData("""{"learning_rate": -1}""", "optimizer", "optimizer.learning_rate")]
    [InlineData("""{"type": "lora", "rank": 0}""", "adapter", "adapter.rank")]
    [InlineData("""{"type": "lora", "rank": 4096}""", "adapter", "adapter.rank")]
    [InlineData("""{"type": "lora", "rnak": 4}""", "adapter", "adapter.rnak")]
    [InlineData("""{"type": "lora", "target_modules": ["query"]}""", "adapter", "adapter.target_modules")]
    public void A_wrong_member_is_named_by_its_path(string part, string member, string path)
    {
        using var folder = new RunFolder();
        var spec = Spec(folder);
        using var value = JsonDocument.Parse(member == "optimizer" ? part.Replace("{", """{"type": "sgd", """) : part);
        spec[member] = value.RootElement.Clone();
        var (exit, lines, errors) = Train(folder, spec);

        Assert.Equal(1, exit);
        var failed = Assert.IsType<FailedReport>(JsonSerializer.Deserialize<Report>(lines[^1], SpecJson.Options));
        Assert.Equal(FailureCode.InvalidSpec, failed.Code);
        Assert.StartsWith(path, failed.Param);
        Assert.Contains(path, errors);
        Assert.DoesNotContain("   at ", errors);
    }

    [Fact]
    public void An_unknown_target_module_is_answered_with_those_that_exist()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder);
        spec["adapter"] = new { type = "lora", target_modules = new[] { "query" } };
        var (_, lines, _) = Train(folder, spec);

        Assert.Contains("q_proj", lines[^1]);
    }

    [Fact]
    public void A_malformed_line_is_named_by_its_row()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder);
        File.AppendAllText(folder.In("rows.jsonl"), "{\"input_ids\": [1, 2\n");
        var (exit, lines, _) = Train(folder, spec);

        Assert.Equal(1, exit);
        var failed = Assert.IsType<FailedReport>(JsonSerializer.Deserialize<Report>(lines[^1], SpecJson.Options));
        Assert.Equal(FailureCode.InvalidData, failed.Code);
        Assert.Equal("data.train:13", failed.Param);
    }

    [Fact]
    public void A_supervised_run_stops_with_a_checkpoint_and_goes_on()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder);
        spec["schedule"] = new { max_steps = 400, batch_size = 2 };
        var (exit, lines, _) = Train(folder, spec, "checkpoint-and-stop", afterStep: 2);
        Assert.Equal(3, exit);
        var stopped = lines.Select(line => JsonSerializer.Deserialize<Report>(line, SpecJson.Options)).OfType<CheckpointReport>().Last().Step;

        var (resumedExit, resumed, _) = Train(folder, spec, "cancel", afterStep: stopped + 2);
        Assert.Equal(4, resumedExit);
        Assert.Equal(stopped + 1, resumed.Select(line => JsonSerializer.Deserialize<Report>(line, SpecJson.Options)).OfType<StepReport>().First().Step);
        Assert.False(File.Exists(folder.In("work", "manifest.json")));
    }

    [Fact]
    public void A_supervised_run_ends_with_its_supervisor()
    {
        using var folder = new RunFolder();
        var spec = Spec(folder);
        spec["schedule"] = new { max_steps = 100_000, batch_size = 2 };
        var (exit, _, _) = Train(folder, spec, command: "", afterStep: 1);   // closes its input and says nothing

        Assert.NotEqual(0, exit);
        Assert.False(File.Exists(folder.In("work", "manifest.json")));
    }

    private static string Model => SharedData.Path("golden", "models", "llama_untied");

    private static Dictionary<string, object> Spec(RunFolder folder) => new()
    {
        ["model"] = Model,
        ["data"] = new { train = folder.TokenRows("rows.jsonl", 12), max_length = 16 },
        ["adapter"] = new { type = "lora", rank = 4 },
        ["schedule"] = new { max_steps = 2, batch_size = 2 },
        ["spectra"] = new { enabled = false },
    };

    private static (int Exit, string[] Lines, string Errors) Train(
        RunFolder folder, Dictionary<string, object> spec, string? command = null, int afterStep = 0)
    {
        File.WriteAllText(folder.In("spec.json"), JsonSerializer.Serialize(spec));
        string[] arguments = ["train", "--spec", folder.In("spec.json"), "--work", folder.In("work")];
        return WorkerProcess.Run(command is null ? arguments : [.. arguments, "--supervised"], command, afterStep);
    }
}
