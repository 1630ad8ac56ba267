using System.Net.Http.Json;
using System.Text.Json.Nodes;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Scores;

/// <summary>A service whose reward models have room for one of the sample's size.</summary>
public sealed class ScoringOneModel : EmbeddedService
{
    public string Data => Folder;

    protected override IReadOnlyDictionary<string, string> Settings =>
        new Dictionary<string, string>(base.Settings) { ["Scores__MemoryBytes"] = "5000000" };
}

/// <summary>Two reward models trained over HTTP, and scored by many callers while they give way to each other.</summary>
public sealed class ScoresTests(ScoringOneModel service) : IClassFixture<ScoringOneModel>
{
    private const int Callers = 50;

    [Fact]
    public async Task Many_callers_get_the_numbers_of_the_verb_while_models_and_processes_come_and_go()
    {
        string[] models = [await Train(new JsonObject { ["type"] = "reward" }), await Train(new JsonObject { ["type"] = "reward", ["ensemble_size"] = 3 })];
        var rows = File.ReadLines(Repository.Sample("data", "preferences-validation.jsonl")).Skip(40).Take(Callers).Select(line => JsonNode.Parse(line)!).ToList();
        var expected = new[] { await Verb(models[0], rows), await Verb(models[1], rows) };

        await AllAgree();
        Assert.Contains("too long", await Refused(models[0], "input[1].responses[0]", new JsonArray(Row(rows[0]), Row(rows[1], string.Join(' ', Enumerable.Repeat("word", 4000))))));

        Assert.DoesNotContain("scoring process has ended", service.Logs, StringComparison.Ordinal);

        // Whatever ends the process, the next request gets a new one; it never held the service's settings.
        var process = ScoringProcess();
        var environment = await File.ReadAllTextAsync($"/proc/{process}/environ");
        Assert.DoesNotContain("DataFolder", environment, StringComparison.Ordinal);
        System.Diagnostics.Process.GetProcessById(process).Kill();
        await AllAgree();
        Assert.NotEqual(process, ScoringProcess());

        async Task AllAgree()
        {
            var answers = await Task.WhenAll(Enumerable.Range(0, 2 * Callers).Select(caller =>
                service.Post("/v1/scores", new JsonObject { ["model"] = models[caller % 2], ["input"] = new JsonArray(Row(rows[caller / 2])) })));
            foreach (var (caller, answer) in answers.Index())
            {
                var (got, wanted) = (answer["data"]![0]!, expected[caller % 2][caller / 2]);
                foreach (var (index, score) in got["scores"]!.AsArray().Index())
                {
                    Assert.Equal((double)wanted[index]!["reward"]!, (double)score!["reward"]!, 1e-5);
                    Assert.Equal((double)wanted[index]!["percentile"]!, (double)score["percentile"]!, 5.0);   // one of forty may lie on the edge
                    Assert.Equal(caller % 2 == 0, score["disagreement"] is null);
                }

                Assert.Equal(Best(wanted), (int)got["best"]!);
            }
        }
    }

    private static int Best(JsonArray scores) => (double)scores[0]!["reward"]! >= (double)scores[1]!["reward"]! ? 0 : 1;

    private static JsonObject Row(JsonNode row, string? longAnswer = null) => new()
    {
        ["prompt"] = row["prompt"]!.DeepClone(),
        ["responses"] = new JsonArray(longAnswer ?? (string)row["chosen"]!, (string)row["rejected"]!),
    };

    private async Task<string> Refused(string model, string param, JsonArray input)
    {
        using var answer = await service.Http.PostAsJsonAsync("/v1/scores", new JsonObject { ["model"] = model, ["input"] = input });
        var error = (await answer.Content.ReadFromJsonAsync<JsonNode>())!["error"]!;
        Assert.Equal((400, "invalid_input", param), ((int)answer.StatusCode, (string)error["code"]!, (string?)error["param"]));
        return ((string)error["message"]!).Replace("takes", "too long: takes", StringComparison.Ordinal);
    }

    private async Task<string> Train(JsonObject objective)
    {
        var job = (string)(await service.Post("/v1/jobs", new JsonObject
        {
            ["model"] = service.SampleModel,
            ["data"] = new JsonObject { ["train"] = await Rows("preferences.jsonl", 40), ["validation"] = await Rows("preferences-validation.jsonl", 20), ["max_length"] = 256 },
            ["objective"] = objective,
            ["adapter"] = new JsonObject { ["type"] = "lora", ["rank"] = 4 },
            ["schedule"] = new JsonObject { ["max_steps"] = 3, ["batch_size"] = 4 },
            ["spectra"] = new JsonObject { ["enabled"] = false },
        }))["id"]!;
        var end = await service.WaitForEnd(job);
        Assert.True((string)end["status"]! == "succeeded", end.ToJsonString() + service.Logs);
        return job;
    }

    private async Task<string> Rows(string name, int count)
    {
        var path = Path.Combine(service.Data, $"{Guid.NewGuid():N}.jsonl");
        await File.WriteAllLinesAsync(path, File.ReadLines(Repository.Sample("data", name)).Take(count));
        return await service.Upload(path);
    }

    /// <summary>Scores of the verb on the files that the job left behind.</summary>
    private async Task<List<JsonArray>> Verb(string job, List<JsonNode> rows)
    {
        var adapter = Directory.CreateDirectory(Path.Combine(service.Data, $"adapter-{job}")).FullName;
        foreach (var file in (await service.Get($"/v1/jobs/{job}/artifacts"))["data"]!.AsArray().Select(file => (string)file!["path"]!).Where(path => path.StartsWith("adapter/", StringComparison.Ordinal)))
        {
            await File.WriteAllBytesAsync(Path.Combine(service.Data, $"adapter-{job}", Path.GetFileName(file)), await service.Http.GetByteArrayAsync(new Uri($"/v1/jobs/{job}/artifacts/{file}", UriKind.Relative)));
        }

        var (input, output) = (adapter + ".in.jsonl", adapter + ".out.jsonl");
        await File.WriteAllLinesAsync(input, rows.Select(row => Row(row).ToJsonString()));
        await using var verb = ServiceProcess.Start(
            "dotnet",
            [Repository.Program("Worker"), "score", "--model", Repository.Sample("model"), "--adapter", adapter, "--input", input, "--output", output],
            new Dictionary<string, string>(), service.Data);
        await verb.WaitForExitAsync(TimeSpan.FromMinutes(2));
        Assert.True(verb.ExitCode == 0, verb.Log);
        return [.. (await File.ReadAllLinesAsync(output)).Select(line => JsonNode.Parse(line)!["scores"]!.AsArray())];
    }

    private int ScoringProcess() => int.Parse(Path.GetFileName(Directory.GetDirectories("/proc").Where(folder => int.TryParse(Path.GetFileName(folder), out _)).Single(folder =>
    {
        try
        {
            return File.ReadAllText(Path.Combine(folder, "cmdline")).Contains("\0serve-scores\0", StringComparison.Ordinal)
                && new DirectoryInfo(Path.Combine(folder, "cwd")).LinkTarget?.StartsWith(service.Data, StringComparison.Ordinal) == true;
        }
        catch (IOException)
        {
            return false;   // it ended meanwhile
        }
    })), System.Globalization.CultureInfo.InvariantCulture);
}
