using System.Net.Http.Json;
using System.Text.Json.Nodes;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Methods;

/// <summary>A job for every adapter that the service offers, on a real pretrained model, and what is said to settings that cannot be.</summary>
public sealed class EveryAdapterTests(EmbeddedService service) : IClassFixture<EmbeddedService>
{
    /// <summary>Settings of methods whose defaults are made for larger models than one of 64 x 32, or that have none.</summary>
    private static readonly Dictionary<string, string> Smaller = new()
    {
        ["miss"] = """{ "rank": 8 }""",
        ["kind"] = """{ "classes": ["first", "second"] }""",
        ["vblora"] = """{ "vector_length": 4 }""",
    };

    [Fact]
    public async Task A_job_of_every_adapter_succeeds()
    {
        var model = await Stories();
        var rows = await Rows();
        var classed = await Rows("first", "second");
        var names = (await service.Get("/v1/methods?family=adapter"))["data"]!.AsArray().Select(method => (string)method!["name"]!).ToList();
        Assert.True(names.Count >= 28, string.Join(' ', names));

        var jobs = new Dictionary<string, string>();
        foreach (var name in names.OrderBy(name => name == "atlas"))
        {
            var adapter = Smaller.TryGetValue(name, out var settings) ? JsonNode.Parse(settings)!.AsObject() : [];
            adapter["type"] = name;
            if (name == "atlas")
            {
                adapter["task_vectors"] = new JsonArray((string)(await service.WaitForEnd(jobs["lora"]))["fine_tuned_model"]!, jobs["lora"]);
            }

            jobs[name] = (string)(await service.Post("/v1/jobs", Spec(model, name == "kind" ? classed : rows, adapter)))["id"]!;
        }

        var failed = new List<string>();
        foreach (var (name, job) in jobs)
        {
            var end = await service.WaitForEnd(job);
            if ((string)end["status"]! != "succeeded")
            {
                failed.Add($"{name}: {end["error"]?.ToJsonString()}");
            }
        }

        Assert.True(failed.Count == 0, string.Join('\n', failed));
    }

    [Theory]
    [InlineData("""{ "type": "lora", "rank": 33 }""", "adapter.rank", "use at most 32")]
    [InlineData("""{ "type": "pissa", "rank": 8, "dropout": 0.1 }""", "adapter.dropout", "set it to 0")]
    [InlineData("""{ "type": "miss", "rank": 8, "variant": "mini", "mini_rank": 5 }""", "adapter.mini_rank", "choose a divisor")]
    [InlineData("""{ "type": "dora", "target_modules": ["c_attn"] }""", "adapter.target_modules[0]", "there are")]
    [InlineData("""{ "type": "vera", "rank": -1 }""", "adapter.rank", "it must be a number from 1 to")]
    [InlineData("""{ "type": "adalora", "target_rank": 1e300 }""", "adapter.target_rank", "it must be a number")]
    [InlineData("""{ "type": "dora", "rank_patern": {} }""", "adapter.rank_patern", "rank_pattern")]
    [InlineData("""{ "type": "loar" }""", "adapter.type", "did you mean lora")]
    [InlineData("""{ "type": "atlas", "task_vectors": ["/etc"] }""", "adapter.task_vectors[0]", "no fine-tuned model '/etc'")]
    [InlineData("""{ "type": "oft", "target_modules": [] }""", "adapter.target_modules", "")]
    [InlineData("""{ "type": "prefix", "num_virtual_tokens": 600 }""", "adapter.num_virtual_tokens", "use at most 510")]
    [InlineData("""{ "type": "prompt", "init": "text" }""", "adapter.init_text", "give a text")]
    [InlineData("""{ "type": "fourierft", "exclude_modules": "(" }""", "adapter.exclude_modules", "regular expression")]
    public async Task Settings_that_cannot_be_are_named_with_the_fix(string adapter, string path, string words)
    {
        var spec = Spec(await Stories(), await Rows(), JsonNode.Parse(adapter)!.AsObject());

        using var answer = await service.Http.PostAsJsonAsync("/v1/jobs", spec);

        var body = (await answer.Content.ReadFromJsonAsync<JsonNode>())!["error"]!;
        Assert.Equal(400, (int)answer.StatusCode);
        Assert.Equal(path, (string?)body["param"]);
        Assert.Contains(words, (string)body["message"]!, StringComparison.Ordinal);
    }

    private static JsonObject Spec(string model, string rows, JsonObject adapter) => new()
    {
        ["model"] = model,
        ["data"] = new JsonObject { ["train"] = rows, ["max_length"] = 64 },
        ["adapter"] = adapter,
        ["schedule"] = new JsonObject { ["max_steps"] = 4, ["batch_size"] = 2 },
        ["spectra"] = new JsonObject { ["enabled"] = false },
    };

    private async Task<string> Stories()
    {
        var folder = Ancestors().Select(parent => Path.Combine(parent, "shared", "data", "models", "stories260K")).FirstOrDefault(Directory.Exists);
        Assert.SkipUnless(
            folder is not null || Environment.GetEnvironmentVariable("CI") == "true", "There is no shared/data/models/stories260K beside the checkout or above it.");
        return (string)(await service.Post("/v1/models", new JsonObject { ["name"] = $"stories-{Guid.NewGuid():N}", ["path"] = folder }))["id"]!;
    }

    private static IEnumerable<string> Ancestors()
    {
        for (var folder = Directory.GetParent(Repository.Root); folder is not null; folder = folder.Parent)
        {
            yield return folder.FullName;
        }
    }

    /// <param name="classes">Classes that the rows name by turns.</param>
    private async Task<string> Rows(params string[] classes)
    {
        var folder = Directory.CreateTempSubdirectory("training-service-rows-").FullName;
        try
        {
            var path = Path.Combine(folder, "rows.jsonl");
            await File.WriteAllLinesAsync(path, File.ReadLines(Repository.Sample("data", "train.jsonl")).Take(24).Index().Select(
                line => classes.Length == 0 ? line.Item : $$"""{"class": "{{classes[line.Index % classes.Length]}}", {{line.Item[1..]}}"""));
            return await service.Upload(path);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
