using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Training;
using TrainingService.Training.Models;

namespace TrainingService.Bench;

/// <summary>Every adapter on one task, the sample model's: the table of <c>docs/methods/README.md</c>.</summary>
internal static class Methods
{
    private const int Steps = 60;
    private const string Begin = "<!-- table of adapters: generated, run bench/methods.sh -->";
    private const string End = "<!-- end of table -->";

    /// <summary>Each method takes the better one: their steps are of very different sizes.</summary>
    private static readonly double[] Rates = [3e-3, 2e-2];

    /// <summary>Rates of methods that train inputs of the model and not its weights.</summary>
    private static readonly double[] InputRates = [1e-1, 3e-1];

    /// <summary>A rank of 8 or what comes nearest to it, where the defaults are for larger models.</summary>
    private static readonly Dictionary<string, string> Settings = new()
    {
        ["adalora"] = """{ "initial_rank": 12, "target_rank": 8, "alpha": 16 }""",
        ["diffora"] = """{ "rank": 8, "alpha": 16 }""",
        ["kind"] = """{ "classes": ["first", "second"] }""",
        ["increlora"] = """{ "target_rank": 8, "alpha": 16, "max_rank": 16 }""",
        ["nola"] = "{}",
        ["randlora"] = """{ "rank": 8, "alpha": 160 }""",
        ["vblora"] = """{ "rank": 8, "vector_length": 32, "num_vectors": 64 }""",
        ["vera"] = """{ "rank": 64 }""",
    };

    /// <param name="worker">Program of the training process.</param>
    /// <param name="page">Page whose table is made anew.</param>
    /// <param name="only">Names of methods; empty: all.</param>
    public static async Task RunAsync(string worker, string page, IReadOnlyList<string> only, CancellationToken ct)
    {
        var folder = Directory.CreateTempSubdirectory("training-methods-").FullName;
        var model = ModelConfig.Parse(await File.ReadAllTextAsync(Path.Combine("samples", "model", "config.json"), ct));
        var rows = new List<string>();
        try
        {
            foreach (var method in MethodCatalogue.All.Where(method => method.Family == "adapter" && (only.Count == 0 || only.Contains(method.Name))))
            {
                var adapter = SettingsOf(method);
                if (method.Name == "atlas")
                {
                    adapter["task_vectors"] = new JsonArray(
                        await VectorAsync(worker, folder, "first", ct), await VectorAsync(worker, folder, "second", ct));
                }

                var runs = new List<Measured>();
                foreach (var rate in method.Name is "prompt" or "prefix" ? InputRates : Rates)
                {
                    runs.Add(await TrainAsync(worker, folder, adapter, rate, ct));
                }

                var best = runs.MinBy(run => run.After)!;
                var trained = Estimate.For(best.Spec, model).TrainableParameters;
                rows.Add(string.Create(
                    CultureInfo.InvariantCulture,
                    $"| [`{method.Name}`]({method.Name}.md) | {trained:N0} | {best.Before:0.000} | {best.After:0.000} | {best.Rate:0.###} | {best.StepSeconds * 1000:0} | {best.PeakBytes / 1048576.0:0} |"));
                Console.Error.WriteLine(rows[^1]);
            }

            Write(page, rows);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static JsonObject SettingsOf(Method method)
    {
        var adapter = new JsonObject { ["type"] = method.Name };
        if (Settings.TryGetValue(method.Name, out var own))
        {
            foreach (var (name, value) in JsonNode.Parse(own)!.AsObject())
            {
                adapter[name] = value?.DeepClone();
            }

            return adapter;
        }

        var defaults = method.Defaults.AsObject();
        if (defaults.ContainsKey("rank"))
        {
            adapter["rank"] = 8;
        }

        // Where the default is twice the rank or the rank itself, it stays so.
        if (defaults["alpha"]?.GetValueKind() == JsonValueKind.Number && defaults["rank"]?.GetValueKind() == JsonValueKind.Number)
        {
            adapter["alpha"] = 8 * defaults["alpha"]!.GetValue<double>() / defaults["rank"]!.GetValue<double>();
        }

        return adapter;
    }

    /// <summary>A LoRA of one half of the training rows, for methods that mix what others learned.</summary>
    /// <returns>Its folder.</returns>
    private static async Task<string> VectorAsync(string worker, string folder, string half, CancellationToken ct)
    {
        var kept = Path.Combine(folder, half);
        await TrainAsync(worker, folder, new JsonObject { ["type"] = "lora", ["rank"] = 8, ["alpha"] = 16 }, Rates[^1], ct, half, kept);
        return Path.Combine(kept, "adapter");
    }

    /// <summary>The sample's rows, each with a class; the classes are what the two halves are called.</summary>
    private static string Rows(string folder, string name, string? half)
    {
        var file = Path.Combine(folder, $"{half ?? "all"}-{name}.jsonl");
        var lines = File.ReadAllLines(Path.Combine("samples", "data", name + ".jsonl")).Index()
            .Select(line => (Class: line.Index % 2 == 0 ? "first" : "second", line.Item))
            .Where(line => half is null || line.Class == half)
            .Select(line => $$"""{"class": "{{line.Class}}", {{line.Item[1..]}}""");
        File.WriteAllLines(file, lines);
        return file;
    }

    /// <param name="half">Trains on these rows alone; null: on all.</param>
    /// <param name="keep">Where the run's folder is kept; null: nowhere.</param>
    private static async Task<Measured> TrainAsync(
        string worker, string folder, JsonObject adapter, double rate, CancellationToken ct, string? half = null, string? keep = null)
    {
        var spec = new JsonObject
        {
            ["model"] = Path.GetFullPath(Path.Combine("samples", "model")),
            ["data"] = new JsonObject
            {
                ["train"] = Rows(folder, "train", half),
                ["validation"] = Rows(folder, "validation", half: null),
                ["max_length"] = 256,
                ["packing"] = false,
            },
            ["adapter"] = adapter.DeepClone(),
            ["optimizer"] = new JsonObject { ["type"] = "adamw", ["learning_rate"] = rate },
            ["schedule"] = new JsonObject { ["max_steps"] = Steps, ["batch_size"] = 16, ["lr_scheduler"] = "cosine", ["warmup_ratio"] = 0.05 },
            ["evaluation"] = new JsonObject { ["every_steps"] = Steps },
            ["checkpoints"] = new JsonObject { ["every_steps"] = Steps },
            ["spectra"] = new JsonObject { ["enabled"] = false },
        };
        var work = Path.Combine(folder, Path.GetRandomFileName());
        Directory.CreateDirectory(work);
        var file = Path.Combine(work, "spec.json");
        await File.WriteAllTextAsync(file, spec.ToJsonString(), ct);
        var start = new ProcessStartInfo("dotnet", [worker, "train", "--spec", file, "--work", Path.Combine(work, "run")])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var process = Process.Start(start) ?? throw new IOException("The training process did not start.");
        var log = process.StandardError.ReadToEndAsync(ct);
        JsonElement? done = null;
        while (await process.StandardOutput.ReadLineAsync(ct) is { } line)
        {
            var report = JsonElement.Parse(line);
            done = report.GetProperty("type").GetString() == "done" ? report : done;
        }

        await process.WaitForExitAsync(ct);
        if (done is not { } end)
        {
            throw new InvalidOperationException($"{adapter.ToJsonString()} did not end: {await log}");
        }

        if (keep is not null)
        {
            Directory.Move(Path.Combine(work, "run"), keep);
        }

        Directory.Delete(work, recursive: true);
        var (metrics, usage) = (end.GetProperty("metrics"), end.GetProperty("usage"));
        return new(
            SpecJson.Parse(spec.ToJsonString()).Spec!, rate, metrics.GetProperty("eval/loss_before").GetDouble(), metrics.GetProperty("eval/loss").GetDouble(),
            usage.GetProperty("seconds_per_step").GetDouble(), usage.GetProperty("memory_peak_bytes").GetInt64());
    }

    private static void Write(string page, IReadOnlyList<string> rows)
    {
        var text = File.ReadAllText(page);
        var (from, to) = (text.IndexOf(Begin, StringComparison.Ordinal), text.IndexOf(End, StringComparison.Ordinal));
        if (from < 0 || to < from)
        {
            throw new InvalidOperationException($"{page} has no place for the table: {Begin} … {End}");
        }

        var table = new StringBuilder().Append(Begin).Append('\n')
            .Append("| method | trained numbers | held-out loss before | after | learning rate | ms per step | peak memory, MiB |\n")
            .Append("| --- | --- | --- | --- | --- | --- | --- |\n");
        foreach (var row in rows)
        {
            table.Append(row).Append('\n');
        }

        File.WriteAllText(page, text[..from] + table + text[to..]);
    }

    private sealed record Measured(TrainingSpec Spec, double Rate, double Before, double After, double StepSeconds, long PeakBytes);
}
