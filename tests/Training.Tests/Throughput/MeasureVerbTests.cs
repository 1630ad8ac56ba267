using System.Text.Json;
using TrainingService.Training.Tests.Runs;

namespace TrainingService.Training.Tests.Throughput;

public sealed class MeasureVerbTests
{
    /// <summary>The figures belong together: rate · operations = achieved, achieved / mean product rate = share.</summary>
    [Fact]
    public void Steps_are_measured_in_a_training_process()
    {
        var (exit, lines, errors) = WorkerProcess.Run(
            ["measure", "steps", "--hidden", "16", "--layers", "1", "--heads", "2", "--mlp", "32", "--vocabulary", "50", "--batch", "2", "--length", "8",
             "--rank", "2", "--warm-up", "1", "--steps", "2", "--precision", "bfloat16"]);

        Assert.True(exit == 0, errors);
        using var line = JsonDocument.Parse(Assert.Single(lines));
        double Number(string name) => line.RootElement.GetProperty(name).GetDouble();
        Assert.Equal("bfloat16", line.RootElement.GetProperty("precision").GetString());
        Assert.Equal(16, Number("tokens_per_second") * Number("seconds_per_step"), 6);   // tokens of a step
        Assert.Equal(1, Number("tokens_per_second") * Number("flops_per_token") / 1e9 / Number("achieved_gflops"), 6);
        Assert.Equal(
            1, Number("achieved_gflops") / ((Number("product_before_gflops") + Number("product_after_gflops")) / 2) / Number("share_of_product"), 6);
        Assert.InRange(Number("memory_above_start_bytes"), 1, Number("memory_peak_bytes") - 1);
        Assert.NotEmpty(line.RootElement.GetProperty("allocator").GetString()!);
    }

    [Fact]
    public void A_shape_that_is_no_model_is_refused_in_one_line()
    {
        var (exit, _, errors) = WorkerProcess.Run(["measure", "steps", "--hidden", "17", "--heads", "2"]);

        Assert.Equal(1, exit);
        Assert.Contains("num_attention_heads", errors);
        Assert.DoesNotContain("   at ", errors);
    }
}
