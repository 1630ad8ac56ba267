using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>The job that the tests here break, with everything switched on that an interruption could change.</summary>
internal static class ChaosJob
{
    private static readonly string[] Clocked = ["tokens_per_second", "memory_bytes"];

    private static readonly string[] Compared =
        ["adapter/adapter_model.safetensors", "metrics/results.csv", "metrics/data_order.csv", "spectra/spectra.json"];

    /// <summary>Uploads the rows once and returns what <see cref="Spec"/> needs of a service.</summary>
    public static async Task<(string Train, string Validation)> UploadAsync(RunningService service)
    {
        var folder = Directory.CreateTempSubdirectory("training-service-rows-").FullName;
        try
        {
            return (await Rows("train", 400), await Rows("validation", 24));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }

        async Task<string> Rows(string name, int count)
        {
            var path = Path.Combine(folder, $"{name}.jsonl");
            await File.WriteAllLinesAsync(path, File.ReadLines(Repository.Sample("data", $"{name}.jsonl")).Take(count));
            return await service.Upload(path);
        }
    }

    /// <param name="seed">Another seed gives another run.</param>
    /// <param name="steps">Optimizer steps, each of two batches.</param>
    public static JsonObject Spec(RunningService service, (string Train, string Validation) data, int seed, int steps = 24) => new()
    {
        ["model"] = service.SampleModel,
        ["data"] = new JsonObject { ["train"] = data.Train, ["validation"] = data.Validation, ["max_length"] = 64, ["packing"] = true },
        ["adapter"] = new JsonObject
        {
            ["type"] = "lora",
            ["rank"] = 4,
            ["alpha"] = 8,
            ["dropout"] = 0.1,
            ["target_modules"] = new JsonArray("q_proj", "v_proj"),
        },
        ["optimizer"] = new JsonObject { ["type"] = "adamw", ["learning_rate"] = 3e-3 },
        ["schedule"] = new JsonObject { ["max_steps"] = steps, ["batch_size"] = 4, ["gradient_accumulation_steps"] = 2 },
        ["evaluation"] = new JsonObject { ["every_steps"] = 5, ["early_stopping_patience"] = 20 },
        ["checkpoints"] = new JsonObject { ["every_steps"] = 4, ["keep"] = 2 },
        ["spectra"] = new JsonObject { ["enabled"] = true },
        ["seed"] = seed,
    };

    public static async Task<string> SubmitAsync(RunningService service, JsonObject spec) => (string)(await service.Post("/v1/jobs", spec))["id"]!;

    /// <summary>What a finished job leaves behind and no clock enters: files by path, and its figures in the database.</summary>
    public static async Task<IReadOnlyDictionary<string, byte[]>> ResultAsync(RunningService service, string job)
    {
        var result = new Dictionary<string, byte[]>();
        foreach (var path in Compared)
        {
            result[path] = await service.Http.GetByteArrayAsync(new Uri($"/v1/jobs/{job}/artifacts/{path}", UriKind.Relative));
        }

        result["figures in the database"] = Encoding.UTF8.GetBytes(Figures(await service.Get($"/v1/jobs/{job}/metrics")));
        return result;
    }

    /// <summary>Holds when two runs ended in the same bytes.</summary>
    public static void AssertSame(IReadOnlyDictionary<string, byte[]> expected, IReadOnlyDictionary<string, byte[]> actual, string what)
    {
        Assert.Equal(expected.Keys.Order(), actual.Keys.Order());
        foreach (var (path, bytes) in expected)
        {
            Assert.True(bytes.AsSpan().SequenceEqual(actual[path]), $"{path} of {what} differs from that of an undisturbed run: {Difference(bytes, actual[path])}");
        }
    }

    /// <summary>One line per step and name, so that a step that is missing or doubled shows.</summary>
    private static string Figures(JsonNode columns)
    {
        var text = new StringBuilder();
        text.Append("steps ").AppendLine(columns["step"]!.ToJsonString());
        foreach (var (name, values) in columns["columns"]!.AsObject().OrderBy(column => column.Key, StringComparer.Ordinal))
        {
            if (!Clocked.Contains(name))
            {
                // The databases write the same number in different ways.
                var numbers = values!.AsArray().Select(value => ((double?)value)?.ToString("R", CultureInfo.InvariantCulture) ?? "-");
                text.Append(name).Append(' ').AppendJoin(' ', numbers).AppendLine();
            }
        }

        return text.ToString();
    }

    /// <summary>Where two files part, and what stands there in each.</summary>
    private static string Difference(byte[] expected, byte[] actual)
    {
        var same = expected.AsSpan().CommonPrefixLength(actual);
        string Excerpt(byte[] bytes) => Encoding.Latin1.GetString(bytes.AsSpan(Math.Max(0, same - 60)..Math.Min(bytes.Length, same + 60)));
        return string.Create(
            CultureInfo.InvariantCulture,
            $"byte {same} of {expected.Length} and {actual.Length}\n- {Excerpt(expected)}\n+ {Excerpt(actual)}");
    }
}
