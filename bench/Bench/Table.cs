using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Training;
using TrainingService.Training.Throughput;

namespace TrainingService.Bench;

/// <summary>Makes one table of the lines that the measurements left in a folder: <c>bench.md</c> and <c>bench.json</c>.</summary>
internal static class Table
{
    private const double Mebibyte = 1 << 20;

    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    /// <param name="folder">Holds <c>*.jsonl</c>; gets the tables.</param>
    /// <param name="command">What was run.</param>
    public static void Write(string folder, string command)
    {
        var lines = Directory.GetFiles(folder, "*.jsonl").Order(StringComparer.Ordinal).SelectMany(File.ReadLines)
            .Where(line => line.StartsWith('{')).Select(line => JsonNode.Parse(line)!.AsObject()).ToList();
        var machine = Machine();
        var date = TimeProvider.System.GetUtcNow().ToString("yyyy-MM-dd", CultureInfo.InvariantCulture);
        var text = new StringBuilder().Append(CultureInfo.InvariantCulture, $"{machine}; {date}; `{command}`.\n");
        var steps = lines.Where(line => line.ContainsKey("shape")).ToList();
        if (steps.Count > 0)
        {
            WriteSteps(text, steps);
        }

        var figures = lines.Where(line => line.ContainsKey("unit")).ToList();
        if (figures.Count > 0)
        {
            text.Append("\n| figure | value | of |\n| --- | --- | --- |\n");
            figures.ForEach(line => text.Append(
                CultureInfo.InvariantCulture, $"| {line["name"]} | {Rounded((double)line["value"]!)} {line["unit"]} | {line["conditions"]} |\n"));
        }

        File.WriteAllText(Path.Combine(folder, "bench.md"), text.ToString());
        var all = new JsonObject
        {
            ["machine"] = machine,
            ["date"] = date,
            ["command"] = command,
            ["steps"] = new JsonArray([.. steps.Select(line => line.DeepClone())]),
            ["figures"] = new JsonArray([.. figures.Select(line => line.DeepClone())]),
        };
        File.WriteAllText(Path.Combine(folder, "bench.json"), all.ToJsonString(Indented));
        Console.Write(text);
    }

    private static void WriteSteps(StringBuilder text, List<JsonObject> steps)
    {
        text.Append("\n| hidden, layers, heads, MLP | format | tokens/s | product before / after, GFLOP/s | steps, GFLOP/s | share | peak memory | above start | memory, estimate / actual | time, estimate / actual | allocator |\n");
        text.Append("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
        foreach (var line in steps)
        {
            var shape = line["shape"]!;
            double Number(string name) => (double)line[name]!;
            text.Append(
                CultureInfo.InvariantCulture,
                $"| {shape["hidden"]}, {shape["layers"]}, {shape["heads"]}, {shape["mlp"]} | {line["precision"]} | {Number("tokens_per_second"):F0} "
                + $"| {Number("product_before_gflops"):F0} / {Number("product_after_gflops"):F0} | {Number("achieved_gflops"):F0} | {Number("share_of_product"):P0} "
                + $"| {Number("memory_peak_bytes") / Mebibyte:F0} MiB | {Number("memory_above_start_bytes") / Mebibyte:F0} MiB "
                + $"| {Number("memory_estimated_bytes") / Number("memory_peak_bytes"):F2} | {TimeRatio(line, steps)} | {line["allocator"]} |\n");
        }
    }

    /// <summary>What the service would estimate when only the other shapes had run, over what a step took; empty when there is no other.</summary>
    private static string TimeRatio(JsonObject line, List<JsonObject> steps)
    {
        var others = new Pace([.. steps
            .Where(other => !ReferenceEquals(other, line) && !JsonNode.DeepEquals(other["shape"], line["shape"]))
            .Select(other => new PastRun(CostOf(other) with { SecondsPerStep = (double)other["seconds_per_step"]! }, 0))]);
        return others.Timed(CostOf(line)).SecondsPerStep is { } estimated
            ? (estimated / (double)line["seconds_per_step"]!).ToString("F2", CultureInfo.InvariantCulture)
            : "";
    }

    private static RunCost CostOf(JsonObject line) => new(
        "cpu", (string)line["precision"]! == "bfloat16" ? Precision.Bfloat16 : Precision.Float32, (long)line["memory_estimated_bytes"]!, 0, null,
        (double)line["flops_per_token"]! * (int)line["batch"]! * (int)line["length"]!, null, null);

    /// <summary>Three digits, and no more of large numbers than their whole part.</summary>
    private static string Rounded(double value) =>
        value.ToString(Math.Abs(value) switch { >= 100 => "F0", >= 10 => "F1", _ => "F2" }, CultureInfo.InvariantCulture);

    private static string Machine()
    {
        const string modelName = "model name";
        var model = File.Exists("/proc/cpuinfo")
            ? File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith(modelName, StringComparison.Ordinal))?.Split(':', 2)[1].Trim()
            : null;
        var memory = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / (double)(1 << 30);
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{Environment.ProcessorCount} cores of {model ?? RuntimeInformation.ProcessArchitecture.ToString()}, {memory:F0} GiB, {RuntimeInformation.OSDescription}");
    }
}
