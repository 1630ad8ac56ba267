using System.IO.Compression;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json.Nodes;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.BadInput;

/// <summary>Bad input to the service: refused as early as it can be known, else a failed job that is its owner's to mend.</summary>
public abstract class HttpTests(RunningService service)
{
    public static TheoryData<string> Refusals => [.. BadCase.All.Where(bad => bad.Stage != Stage.Run).Select(bad => bad.Name)];

    public static TheoryData<string> Failures => [.. BadCase.All.Where(bad => bad.Stage == Stage.Run).Select(bad => bad.Name)];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Theory]
    [MemberData(nameof(Refusals))]
    public async Task What_can_be_known_is_refused_at_once(string name)
    {
        var bad = BadCase.All.Single(one => one.Name == name);
        using var inputs = new Inputs();
        bad.Spoil(inputs);

        var answer = await Register(inputs);
        if (bad.Stage == Stage.Submission)
        {
            answer = await Submit(inputs, Id(answer));
        }

        Refused(answer, 400, bad.Refusal ?? bad.Code, bad.Param, bad.Says);
    }

    [Theory]
    [MemberData(nameof(Failures))]
    public async Task What_shows_in_the_run_fails_the_job(string name)
    {
        var bad = BadCase.All.Single(one => one.Name == name);
        using var inputs = new Inputs();
        bad.Spoil(inputs);

        await Failed(Id(await Submit(inputs, Id(await Register(inputs)))), bad.Code, bad.Param, bad.Says);
    }

    [Fact]
    public async Task Good_jobs_succeed_behind_bad_ones()
    {
        using var inputs = new Inputs();
        File.AppendAllText(inputs.Rows, "not json\n");
        var model = Id(await Register(inputs));
        var bad = new[] { Id(await Submit(inputs, model)), Id(await Submit(inputs, model)) };

        await GoodJobSucceeds();
        foreach (var job in bad)
        {
            await Failed(job, "invalid_data", "data.train:9", "row 9", "column");
        }
    }

    [Fact]
    public async Task An_unknown_file_is_refused()
    {
        using var inputs = new Inputs();
        inputs.Spec["data"]!["train"] = "file-00000000000000000000000000000000";

        Refused(await Submit(inputs, Id(await Register(inputs))), 400, "file_not_found", "data.train", "file-0000", "/v1/files");
        Refused(await Send(HttpMethod.Get, "/v1/files/file-00000000000000000000000000000000"), 404, "not_found", "id", "file-0000");
    }

    [Fact]
    public async Task A_local_path_is_no_adapter_for_the_service()
    {
        using var inputs = new Inputs();
        inputs.Spec["adapter"]!["from"] = "/etc";

        Refused(await Submit(inputs, Id(await Register(inputs))), 400, "model_not_available", "adapter.from", "/etc", "/v1/models");
    }

    [Fact]
    public async Task An_adapter_of_another_base_is_refused()
    {
        var job = await GoodJobSucceeds();
        using var inputs = new Inputs();
        inputs.Spec["adapter"]!["from"] = (string?)job["fine_tuned_model"];

        Refused(
            await Submit(inputs, Id(await Register(inputs))), 400, "wrong_base_model", "adapter.from",
            "set model to " + (string?)job["spec"]!["model"]);
    }

    [Fact]
    public async Task A_body_that_is_no_json_is_named_by_line_and_column()
    {
        using var content = new StringContent("{\"model\": \"x\",\n  \"data\": }", Encoding.UTF8, "application/json");

        Refused(await Send(HttpMethod.Post, "/v1/jobs", content), 400, "invalid_json", null, "line 2, column 11");
    }

    [Fact]
    public async Task A_body_that_is_too_large_is_refused()
    {
        using var content = new StringContent("{\"model\":\"" + new string('x', 5_000_000) + "\"}", Encoding.UTF8, "application/json");

        Refused(await Send(HttpMethod.Post, "/v1/jobs", content), 413, "request_too_large", null, "4,194,304");
    }

    [Fact]
    public async Task A_key_with_another_body_is_a_conflict()
    {
        using var inputs = new Inputs();
        var model = Id(await Register(inputs));
        var rows = await service.Upload(inputs.Rows);
        var key = $"key-{Guid.NewGuid():N}";
        Id(await Send(HttpMethod.Post, "/v1/jobs", JsonContent.Create(inputs.SpecFor(model, rows)), key));
        inputs.Spec["seed"] = 7;

        Refused(
            await Send(HttpMethod.Post, "/v1/jobs", JsonContent.Create(inputs.SpecFor(model, rows)), key),
            409, "idempotency_key_reused", null, key, "new key");
    }

    protected async Task<JsonNode> GoodJobSucceeds()
    {
        using var inputs = new Inputs();
        var job = await service.WaitForEnd(Id(await Submit(inputs, Id(await Register(inputs)))));
        Assert.True((string?)job["status"] == "succeeded", job.ToJsonString() + service.Logs);
        return job;
    }

    private protected async Task Failed(string job, string code, string param, params string[] says)
    {
        foreach (var path in new[] { "/v1/jobs", "/v1/fine_tuning/jobs" })
        {
            await service.WaitForEnd(job);
            var state = await service.Get($"{path}/{job}");
            Assert.True((string?)state["status"] == "failed", state.ToJsonString());
            var error = state["error"]!;
            Assert.Equal((code, param, "user"), ((string?)error["code"], (string?)error["param"], (string?)error["responsibility"]));
            Assert.All(says, word => Assert.Contains(word, (string?)error["message"], StringComparison.Ordinal));
            Assert.DoesNotContain("   at ", (string?)error["log_tail"] ?? "", StringComparison.Ordinal);
        }
    }

    private static void Refused((int Status, JsonNode Body) answer, int status, string code, string? param, params string[] says)
    {
        var text = answer.Body.ToJsonString();
        Assert.True(answer.Status == status, $"{answer.Status}: {text}");
        var error = answer.Body["error"]!;
        Assert.Equal(("invalid_request_error", code, param), ((string?)error["type"], (string?)error["code"], (string?)error["param"]));
        Assert.All(says, word => Assert.Contains(word, (string?)error["message"], StringComparison.Ordinal));
        Assert.DoesNotContain(" at TrainingService.", text, StringComparison.Ordinal);
    }

    /// <summary>Sends the model as an archive: from a client's machine there is no other way.</summary>
    private protected async Task<(int Status, JsonNode Body)> Register(Inputs inputs)
    {
        using var archive = new MemoryStream();
        await ZipFile.CreateFromDirectoryAsync(inputs.Model, archive, Cancellation);
        using var form = new MultipartFormDataContent
        {
            { new StringContent($"tiny-{Guid.NewGuid():N}"), "name" },
            { new ByteArrayContent(archive.ToArray()), "file", "model.zip" },
        };
        return await Send(HttpMethod.Post, "/v1/models", form);
    }

    private protected async Task<(int Status, JsonNode Body)> Submit(Inputs inputs, string model) =>
        await Send(HttpMethod.Post, "/v1/jobs", JsonContent.Create(inputs.SpecFor(model, await service.Upload(inputs.Rows))));

    private protected async Task<(int Status, JsonNode Body)> Send(HttpMethod method, string path, HttpContent? content = null, string? key = null)
    {
        using var request = new HttpRequestMessage(method, path) { Content = content };
        if (key is not null)
        {
            request.Headers.Add("Idempotency-Key", key);
        }

        using var answer = await service.Http.SendAsync(request, Cancellation);
        return ((int)answer.StatusCode, JsonNode.Parse(await answer.Content.ReadAsStringAsync(Cancellation))!);
    }

    private protected static string Id((int Status, JsonNode Body) answer)
    {
        Assert.True(answer.Status is 200 or 201, answer.Body.ToJsonString());
        return (string)answer.Body["id"]!;
    }
}

public sealed class BadInputOnEmbeddedTests(EmbeddedService service) : HttpTests(service), IClassFixture<EmbeddedService>
{
    [Fact]
    public async Task A_model_that_is_damaged_after_its_registration_fails_the_job_and_not_the_worker()
    {
        using var inputs = new Inputs();
        var body = new JsonObject { ["name"] = $"folder-{Guid.NewGuid():N}", ["path"] = inputs.Model };
        var model = Id(await Send(HttpMethod.Post, "/v1/models", JsonContent.Create(body)));
        File.WriteAllBytes(inputs.Weights, File.ReadAllBytes(inputs.Weights)[..^100]);

        await Failed(Id(await Submit(inputs, model)), "invalid_data", "model.safetensors:'lm_head.weight'", "truncated");
        await GoodJobSucceeds();
    }
}

public sealed class BadInputOnProductionTests(ProductionService service) : HttpTests(service), IClassFixture<ProductionService>;
