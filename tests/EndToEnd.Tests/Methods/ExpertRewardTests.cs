using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Methods;

/// <summary>Reward models of more than one part, as jobs like any other.</summary>
public sealed class ExpertRewardTests(EmbeddedService service) : IClassFixture<EmbeddedService>
{
    [Fact]
    public async Task All_phases_of_a_mixture_of_experts_are_one_job()
    {
        var rows = Enumerable.Range(0, 64).Select(row => new
        {
            prompt = $"Message: a {Category(row)} day {row % 7}.",
            chosen = row % 2 == 0 ? " red" : " blue",
            rejected = row % 2 == 0 ? " blue" : " red",
            category = Category(row),
            capability = row < 40 ? null : "colour",
        });
        var id = (string)(await service.Post("/v1/jobs", Spec(
            await Upload(rows), new() { ["type"] = "dmoe_reward", ["categories"] = new JsonArray("warm", "cold"), ["capabilities"] = new JsonArray("colour") })))["id"]!;

        var job = await service.WaitForEnd(id);

        Assert.True((string)job["status"]! == "succeeded", job.ToJsonString());
        var events = (await service.Get($"/v1/jobs/{id}/events?limit=1000"))["data"]!.AsArray().Select(line => (string)line!["message"]!).ToList();
        Assert.Superset(
            new HashSet<string> { "Phase: router.", "Phase: base/cold.", "Phase: experts/warm/colour.", "Phase: aggregation/cold." }, events.ToHashSet());
        var files = (await service.Get($"/v1/jobs/{id}/artifacts?limit=100"))["data"]!.AsArray().Select(file => (string)file!["path"]!).ToList();
        Assert.Superset(
            new HashSet<string>
            {
                "adapter/dmoe.json", "adapter/aggregation.safetensors", "adapter/router/adapter_model.safetensors", "adapter/experts/cold/colour/adapter_config.json",
            },
            files.ToHashSet());
        Assert.DoesNotContain(files, file => file.StartsWith('.') || file.Contains("/.", StringComparison.Ordinal));
        var checkpoints = (await service.Get($"/v1/jobs/{id}/checkpoints"))["data"]!.AsArray();
        Assert.Equal(7 * 2, (int)checkpoints[0]!["step_number"]!);
    }

    [Fact]
    public async Task A_model_that_writes_critiques_is_a_job()
    {
        var rows = Enumerable.Range(0, 16).Select(row => new
        {
            prompt = $"Message {row}:",
            chosen = " red",
            rejected = " blue",
            chosen_critique = "It is warm.",
            rejected_critique = "It is cold.",
            is_tie = row % 8 == 0,
        });
        var id = (string)(await service.Post("/v1/jobs", Spec(await Upload(rows), new() { ["type"] = "critique_reward" })))["id"]!;

        var job = await service.WaitForEnd(id);

        Assert.True((string)job["status"]! == "succeeded", job.ToJsonString());
    }

    private static string Category(int row) => row % 2 == 0 ? "warm" : "cold";

    private JsonObject Spec(string rows, JsonObject objective) => new()
    {
        ["model"] = service.SampleModel,
        ["data"] = new JsonObject { ["train"] = rows, ["max_length"] = 64, ["validation_split"] = 0.2 },
        ["objective"] = objective,
        ["adapter"] = new JsonObject { ["type"] = "lora", ["rank"] = 2 },
        ["schedule"] = new JsonObject { ["max_steps"] = 2, ["batch_size"] = 2 },
        ["spectra"] = new JsonObject { ["enabled"] = false },
    };

    private async Task<string> Upload<T>(IEnumerable<T> rows)
    {
        var folder = Directory.CreateTempSubdirectory("training-service-rows-").FullName;
        try
        {
            var path = Path.Combine(folder, "rows.jsonl");
            await File.WriteAllLinesAsync(path, rows.Select(row => JsonSerializer.Serialize(row)));
            return await service.Upload(path);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
