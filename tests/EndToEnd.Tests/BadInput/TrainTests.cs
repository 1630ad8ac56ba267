using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.EndToEnd.Tests.Running;
using TrainingService.Training;

namespace TrainingService.EndToEnd.Tests.BadInput;

/// <summary>Bad input to <c>train</c>: exit code 1, one <c>failed</c> line that says what to change, and no stack trace.</summary>
public sealed class TrainTests
{
    private const string Layer = "model.layers.0.self_attn.q_proj";

    public static TheoryData<string> Names => [.. BadCase.All.Select(bad => bad.Name)];

    [Fact]
    public void The_inputs_are_good_before_they_are_spoilt()
    {
        using var inputs = new Inputs();
        var (exit, reports, errors) = Train(inputs);

        Assert.True(exit == 0, errors);
        Assert.IsType<DoneReport>(reports[^1]);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_bad_input_ends_the_run_with_the_fix(string name)
    {
        var bad = BadCase.All.Single(one => one.Name == name);
        using var inputs = new Inputs();
        bad.Spoil(inputs);

        Refused(inputs, bad.Code, bad.Param, bad.Says);
    }

    [Fact]
    public void A_model_folder_or_file_that_is_not_there_is_named()
    {
        using var inputs = new Inputs();
        File.Delete(inputs.Rows);
        Refused(inputs, "invalid_data", "data.train", "rows.jsonl");

        Directory.Delete(inputs.Model, recursive: true);
        Refused(inputs, "invalid_spec", "model", "There is no model folder 'model'", "config.json");
    }

    [Fact]
    public void A_pickled_adapter_is_refused_with_the_way_to_convert_it()
    {
        using var inputs = new Inputs();
        StartFromAdapter(inputs, Layer, 16);
        File.Move(Path.Combine(inputs.Adapter, "adapter_model.safetensors"), Path.Combine(inputs.Adapter, "adapter_model.bin"));

        Refused(inputs, "invalid_data", "adapter_model.bin", "pickle", "safe_serialization=True");
    }

    [Theory]
    [InlineData("transformer.h.0.attn.c_attn", 16, "c_attn")]
    [InlineData(Layer, 32, "[2, 32]", "[2, 16]")]
    [InlineData("model.layers.7.self_attn.q_proj", 16, "layers.7")]
    public void An_adapter_of_another_base_is_refused(string layer, long width, params string[] says)
    {
        using var inputs = new Inputs();
        StartFromAdapter(inputs, layer, width);

        Refused(inputs, "invalid_data", "adapter_model.safetensors", ["made for another base", .. says]);
    }

    [Fact]
    public void A_truncated_adapter_is_refused()
    {
        using var inputs = new Inputs();
        StartFromAdapter(inputs, Layer, 16);
        var file = Path.Combine(inputs.Adapter, "adapter_model.safetensors");
        File.WriteAllBytes(file, File.ReadAllBytes(file)[..^9]);

        Refused(inputs, "invalid_data", $"adapter_model.safetensors:'base_model.model.{Layer}.lora_B.weight'", "truncated", "again");
    }

    [Fact]
    public void A_spec_that_is_no_json_is_named_by_line_and_column()
    {
        using var inputs = new Inputs();

        Refused(Train(inputs, "{\"model\": \"x\",\n  \"data\": }"), "invalid_spec", "", "line 2, column 11");
    }

    [Fact]
    public void A_spec_that_is_too_large_is_not_read()
    {
        using var inputs = new Inputs();

        Refused(Train(inputs, new string(' ', (4 << 20) + 1)), "invalid_spec", "--spec", "4194304", "not the rows");
    }

    [Fact]
    public void A_work_folder_of_another_spec_is_refused()
    {
        using var inputs = new Inputs();
        Assert.Equal(0, Train(inputs).Exit);
        inputs.Spec["seed"] = 7;

        Refused(inputs, "invalid_spec", null, "another spec", "empty folder");
    }

    private static void StartFromAdapter(Inputs inputs, string layer, long width)
    {
        TinyModel.WriteAdapter(inputs.Adapter, layer, width);
        inputs.Spec["adapter"] = new JsonObject { ["type"] = "lora", ["from"] = inputs.Adapter };
    }

    private static void Refused(Inputs inputs, string code, string? param, params string[] says) =>
        Refused(Train(inputs), code, param, says);

    private static void Refused((int Exit, Report[] Reports, string Errors) run, string code, string? param, params string[] says)
    {
        Assert.True(run.Exit == 1, $"Exit code {run.Exit}.\n{run.Errors}");
        var failed = Assert.IsType<FailedReport>(run.Reports[^1]);
        Assert.True(
            (Enum.Parse<FailureCode>(code.Replace("_", "", StringComparison.Ordinal), ignoreCase: true), param) == (failed.Code, failed.Param), failed.ToString());
        Assert.All(says, word => Assert.Contains(word, failed.Message, StringComparison.Ordinal));
        Assert.Contains(failed.Message, run.Errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", run.Errors, StringComparison.Ordinal);
    }

    private static (int Exit, Report[] Reports, string Errors) Train(Inputs inputs, string? spec = null)
    {
        var file = Path.Combine(inputs.Folder, "spec.json");
        File.WriteAllText(file, spec ?? inputs.SpecFor(inputs.Model, inputs.Rows).ToJsonString());
        var start = new ProcessStartInfo(
            "dotnet", [Repository.Program("Worker"), "train", "--spec", file, "--work", Path.Combine(inputs.Folder, "work")])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["OMP_NUM_THREADS"] = "1";
        using var process = Process.Start(start)!;
        var errors = new System.Text.StringBuilder();
        process.ErrorDataReceived += (_, line) => errors.AppendLine(line.Data);
        process.BeginErrorReadLine();
        var lines = process.StandardOutput.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries);
        process.WaitForExit();
        return (process.ExitCode, [.. lines.Select(line => JsonSerializer.Deserialize<Report>(line, SpecJson.Options)!)], errors.ToString());
    }
}
