using System.Text;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using TrainingService.Domain;
using TrainingService.Domain.Projects;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.Api.Tests;

public abstract class JobTests(ApiService service) : ApiTests(service)
{
    [Fact]
    public async Task A_job_is_shown_whole_in_both_dialects()
    {
        var spec = await Spec();
        spec["suffix"] = "mine";
        spec["metadata"] = new JsonObject { ["team"] = "search" };
        var id = await CreateJob(spec);

        var (_, job) = await Get($"/v1/jobs/{id}");
        Assert.Equal("job", (string?)job["object"]);
        Assert.Equal("queued", (string?)job["status"]);
        Assert.Equal("mine", (string?)job["suffix"]);
        Assert.Equal("search", (string?)job["metadata"]!["team"]);
        Assert.True((int)job["queue_position"]! >= 1);
        Assert.Equal(16, (int)job["spec"]!["adapter"]!["rank"]!);      // a default, written out
        Assert.Equal("queued", (string?)job["history"]![0]!["status"]);

        var (_, compatible) = await Get($"/v1/fine_tuning/jobs/{id}");
        Assert.Equal("fine_tuning.job", (string?)compatible["object"]);
        Assert.Equal((string?)spec["data"]!["train"], (string?)compatible["training_file"]);
        Assert.Equal("supervised", (string?)compatible["method"]!["type"]);
        Assert.Equal("auto", (string?)compatible["hyperparameters"]!["n_epochs"]);
        Assert.Equal(1, (int)compatible["hyperparameters"]!["learning_rate_multiplier"]!);
        Assert.Empty(compatible["result_files"]!.AsArray());
        Assert.Equal("mine", (string?)compatible["user_provided_suffix"]);
    }

    [Fact]
    public async Task All_that_is_wrong_with_a_spec_is_said_at_once()
    {
        var spec = await Spec();
        spec["adapter"] = new JsonObject { ["type"] = "lora", ["rank"] = 0 };
        spec["optimizer"] = new JsonObject { ["type"] = "adamw", ["learning_rate"] = -1 };
        spec["schedule"] = new JsonObject { ["batch_sise"] = 4 };
        spec["model"] = "nobody";
        spec["data"]!["train"] = "file-00000000000000000000000000000000";
        var answer = await Post("/v1/jobs", spec);
        Assert.Equal(400, answer.Status);
        var errors = answer.Body["errors"]!.AsArray();
        Assert.Equal(
            ["adapter.rank", "data.train", "model", "optimizer.learning_rate", "schedule.batch_sise"],
            errors.Select(error => (string)error!["param"]!).Order(StringComparer.Ordinal));
        Assert.Contains("batch_size", errors.Single(error => (string?)error!["param"] == "schedule.batch_sise")!["message"]!.ToString(), StringComparison.Ordinal);
        Assert.Equal(errors[0]!.ToJsonString(), answer.Body["error"]!.ToJsonString());
    }

    [Fact]
    public async Task A_rank_larger_than_the_matrix_is_refused()
    {
        var spec = await Spec();
        spec["adapter"] = new JsonObject { ["type"] = "lora", ["rank"] = 17 };
        AssertError(await Post("/v1/jobs", spec), 400, "rank_too_large", "adapter.rank");
    }

    [Fact]
    public async Task An_unknown_target_module_is_refused_with_those_that_exist()
    {
        var spec = await Spec();
        spec["adapter"] = new JsonObject { ["type"] = "lora", ["rank"] = 2, ["target_modules"] = new JsonArray("query") };
        var error = AssertError(await Post("/v1/jobs", spec), 400, "unknown_module");
        Assert.Contains("q_proj", (string)error["message"]!, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_unknown_adapter_to_start_from_is_refused()
    {
        var spec = await Spec();
        spec["adapter"] = new JsonObject { ["type"] = "lora", ["rank"] = 2, ["from"] = "ft:none" };
        AssertError(await Post("/v1/jobs", spec), 400, "model_not_available", "adapter.from");
    }

    [Fact]
    public async Task Rows_for_an_adapter_to_look_at_are_a_file_of_the_project_itself()
    {
        var shown = await UploadRows("shown.jsonl");
        var spec = await Spec();
        spec["adapter"] = new JsonObject { ["type"] = "corda", ["rank"] = 2 };
        spec["data"]!["calibration"] = shown;
        var (_, job) = await Get($"/v1/jobs/{await CreateJob(spec)}");
        Assert.Equal(shown, (string?)job["spec"]!["data"]!["calibration"]);

        async Task Refused(string id)
        {
            spec["data"]!["calibration"] = id;
            var error = AssertError(await Post("/v1/jobs", spec), 400, "file_not_found", "data.calibration");
            Assert.Equal($"There is no file '{id}'; upload it with POST /v1/files and give its id.", (string?)error["message"]);
        }

        await Refused("file-00000000000000000000000000000000");
        await Refused("../shown.jsonl");
        await GiveAwayFile(shown);
        await Refused(shown);   // what belongs to another project is as if it were not there

        spec["adapter"] = new JsonObject { ["type"] = "lora", ["rank"] = 2 };
        spec["data"]!["calibration"] = await UploadRows();
        var unused = AssertError(await Post("/v1/jobs", spec), 400, "conflict", "data.calibration");
        Assert.Contains("leave it out", (string)unused["message"]!, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"model\": \"x\",\n  \"data\": }", "line 2, column 11")]
    [InlineData("", "")]
    [InlineData("{\"model\":1,\"model\":2}", "")]
    public async Task Malformed_json_is_refused_with_its_place(string text, string place)
    {
        using var content = new StringContent(text, Encoding.UTF8, "application/json");
        using var answer = await Http.PostAsync(new Uri("/v1/jobs", UriKind.Relative), content, Cancellation);
        var body = await answer.Content.ReadAsStringAsync(Cancellation);
        Assert.Equal(400, (int)answer.StatusCode);
        Assert.Contains(place, body, StringComparison.Ordinal);
        Assert.NotNull(JsonNode.Parse(body)!["error"]!["code"]);
    }

    [Fact]
    public async Task A_body_that_is_too_large_is_refused()
    {
        using var content = new StringContent("{\"model\":\"" + new string('x', 5_000_000) + "\"}", Encoding.UTF8, "application/json");
        AssertError(await Send(new HttpRequestMessage(HttpMethod.Post, "/v1/jobs") { Content = content }), 413, "request_too_large");
    }

    [Fact]
    public async Task Routes_and_methods_that_do_not_exist_get_the_envelope()
    {
        AssertError(await Get("/v1/nothing"), 404, "unknown_url");
        AssertError(await Send(new HttpRequestMessage(HttpMethod.Put, "/v1/jobs")), 405, "method_not_allowed");
        AssertError(await Get("/v1/jobs/ftjob-00000000000000000000000000000000"), 404, "not_found", "id");
        AssertError(await Get("/v1/jobs/anything"), 404, "not_found", "id");
        using var content = new StringContent("model=x", Encoding.UTF8, "application/x-www-form-urlencoded");
        AssertError(await Send(new HttpRequestMessage(HttpMethod.Post, "/v1/jobs") { Content = content }), 415, "unsupported_media_type");
    }

    [Fact]
    public async Task The_same_key_and_body_make_one_job()
    {
        var spec = await Spec();
        var key = ("Idempotency-Key", $"key-{Guid.NewGuid():N}");
        var twins = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Post("/v1/jobs", spec, key)));
        Assert.All(twins, answer => Assert.Equal(201, answer.Status));
        Assert.Single(twins.Select(answer => (string)answer.Body["id"]!).Distinct());
        Assert.Equal((string?)twins[0].Body["id"], (string?)(await Post("/v1/jobs", spec, key)).Body["id"]);
    }

    [Fact]
    public async Task A_key_with_another_body_is_a_conflict_that_is_not_retried()
    {
        var spec = await Spec();
        var key = $"key-{Guid.NewGuid():N}";
        await Post("/v1/jobs", spec, ("Idempotency-Key", key));
        spec["seed"] = 7;
        var request = new HttpRequestMessage(HttpMethod.Post, "/v1/jobs") { Content = System.Net.Http.Json.JsonContent.Create(spec) };
        request.Headers.Add("Idempotency-Key", key);
        using var answer = await Http.SendAsync(request, Cancellation);
        Assert.Equal(409, (int)answer.StatusCode);
        Assert.Equal("false", answer.Headers.GetValues("x-should-retry").Single());
        Assert.Equal("idempotency_key_reused", (string?)JsonNode.Parse(await answer.Content.ReadAsStringAsync(Cancellation))!["error"]!["code"]);
    }

    [Fact]
    public async Task A_retry_of_a_client_finds_the_job_of_the_first_try()
    {
        var spec = await Spec();
        var first = (string?)(await Post("/v1/jobs", spec)).Body["id"];
        Assert.Equal(first, (string?)(await Post("/v1/jobs", spec, ("x-stainless-retry-count", "1"))).Body["id"]);
        Assert.NotEqual(first, (string?)(await Post("/v1/jobs", spec, ("x-stainless-retry-count", "0"))).Body["id"]);
        spec["seed"] = 8;
        Assert.NotEqual(first, (string?)(await Post("/v1/jobs", spec, ("x-stainless-retry-count", "1"))).Body["id"]);
    }

    [Fact]
    public async Task Lists_are_paged_newest_first_and_stay_whole_while_jobs_are_added()
    {
        var spec = await Spec();
        var mark = Guid.NewGuid().ToString("N");
        spec["metadata"] = new JsonObject { ["mark"] = mark };
        var made = new List<string>();
        for (var i = 0; i < 5; i++)
        {
            made.Add(await CreateJob(spec));
        }

        foreach (var path in new[] { "/v1/jobs", "/v1/fine_tuning/jobs" })
        {
            var (_, first) = await Get($"{path}?limit=2&metadata[mark]={mark}");
            var late = await CreateJob(spec);
            var (_, second) = await Get($"{path}?limit=100&metadata[mark]={mark}&after={first["last_id"]}");
            var seen = first["data"]!.AsArray().Concat(second["data"]!.AsArray()).Select(job => (string)job!["id"]!).ToList();
            Assert.Equal(Enumerable.Reverse(made), seen);
            Assert.True((bool)first["has_more"]!);
            Assert.False((bool)second["has_more"]!);
            made.Add(late);
        }

        AssertError(await Get("/v1/jobs?after=nobody"), 400, "invalid_cursor", "after");
        AssertError(await Get("/v1/jobs?limit=0"), 400, "invalid_limit", "limit");
        AssertError(await Get("/v1/jobs?status=lost"), 400, "invalid_status", "status");
        Assert.Equal(400, (await Get("/v1/jobs?limit=many")).Status);
    }

    [Fact]
    public async Task A_waiting_job_is_paused_resumed_and_cancelled()
    {
        var id = await CreateJob();
        Assert.Equal("paused", (string?)(await Post($"/v1/jobs/{id}/pause")).Body["status"]);
        Assert.Equal("queued", (string?)(await Post($"/v1/fine_tuning/jobs/{id}/resume")).Body["status"]);
        Assert.Equal("cancelled", (string?)(await Post($"/v1/jobs/{id}/cancel")).Body["status"]);
        AssertError(await Post($"/v1/jobs/{id}/resume"), 409, "job.invalid_transition");
        AssertError(await Post($"/v1/jobs/{id}/cancel"), 409, "job.invalid_transition");
        Assert.NotEmpty((await Get("/v1/jobs?status=cancelled")).Body["data"]!.AsArray());
    }

    [Fact]
    public async Task A_running_job_is_asked_to_pause_and_the_request_can_be_withdrawn()
    {
        var id = await CreateJob();
        var key = PublicId.TryParse(PublicId.Job, id, out var parsed) ? parsed : throw new InvalidOperationException(id);
        await using (var db = await Service.OpenAsync())
        {
            await db.ChangeJobAsync(job => job.Id == key, (job, now) => job.Start("worker", TimeSpan.FromMinutes(9), now), Cancellation);
        }


        var (_, asked) = await Post($"/v1/jobs/{id}/pause");
        Assert.Equal("running", (string?)asked["status"]);
        Assert.NotNull(asked["pause_requested_at"]);
        Assert.NotNull((await Get($"/v1/fine_tuning/jobs/{id}")).Body["pause_requested_at"]);

        Assert.Null((await Post($"/v1/fine_tuning/jobs/{id}/resume")).Body["pause_requested_at"]);
        AssertError(await Post($"/v1/jobs/{id}/resume"), 409, "job.invalid_transition");
        await Post($"/v1/fine_tuning/jobs/{id}/pause");
        Assert.Equal("cancelling", (string?)(await Post($"/v1/jobs/{id}/cancel")).Body["status"]);
        AssertError(await Post($"/v1/jobs/{id}/pause"), 409, "job.invalid_transition");
    }

    [Fact]
    public async Task A_limit_on_the_running_time_is_taken_in_both_dialects_and_kept_in_its_range()
    {
        var spec = await Spec();
        spec["max_run_seconds"] = 3600;
        var id = await CreateJob(spec);
        Assert.Equal(3600, (int)(await Get($"/v1/jobs/{id}")).Body["max_run_seconds"]!);
        var compatible = new JsonObject
        {
            ["model"] = (string?)spec["model"],
            ["training_file"] = (string?)spec["data"]!["train"],
            ["max_run_seconds"] = 60,
        };
        Assert.Equal(60, (int)(await Post("/v1/fine_tuning/jobs", compatible)).Body["max_run_seconds"]!);
        foreach (var wrong in new JsonNode[] { 0, -1, 1.5, "60", 31_536_001, 1e300 })
        {
            spec["max_run_seconds"] = wrong;
            AssertError(await Post("/v1/jobs", spec), 400, "out_of_range", "max_run_seconds");
        }
    }

    [Fact]
    public async Task An_estimate_counts_exactly_what_trains()
    {
        var spec = await Spec();
        spec["adapter"] = new JsonObject { ["type"] = "lora", ["rank"] = 2, ["target_modules"] = new JsonArray("q_proj") };
        var (status, estimate) = await Post("/v1/jobs/estimate", spec);
        Assert.True(status == 200, estimate.ToJsonString());
        Assert.Equal(2 * (16 + 16), (int)estimate["trainable_parameters"]!);
        Assert.Equal(10, (int)estimate["steps"]!);
        Assert.True((long)estimate["memory"]!["total_bytes"]! > 0);
        spec["adapter"]!["rank"] = 0;
        AssertError(await Post("/v1/jobs/estimate", spec), 400, "out_of_range", "adapter.rank");
    }

    [Fact]
    public async Task Methods_are_listed_and_read()
    {
        var (_, list) = await Get("/v1/methods");
        Assert.Contains(list["data"]!.AsArray(), method => (string?)method!["name"] == "lora");
        var (_, lora) = await Get("/v1/methods/lora");
        Assert.Equal(16, (int)lora["defaults"]!["rank"]!);
        Assert.NotNull(lora["schema"]!["properties"]!["rank"]!["description"]);
        AssertError(await Get("/v1/methods/none"), 404, "not_found", "name");
    }

    private async Task GiveAwayFile(string id)
    {
        Assert.True(PublicId.TryParse(PublicId.File, id, out var key));
        await using var db = await Service.OpenAsync();
        var project = new Project { Id = Guid.NewGuid(), Name = $"other-{Guid.NewGuid():N}", CreatedAt = TimeProvider.System.GetUtcNow() };
        db.Projects.Add(project);
        await db.SaveChangesAsync(Cancellation);
        await db.Files.Where(file => file.Id == key).ExecuteUpdateAsync(set => set.SetProperty(file => file.ProjectId, project.Id), Cancellation);
    }
}

public sealed class JobOnEmbeddedTests(EmbeddedApi service) : JobTests(service), IClassFixture<EmbeddedApi>;

public sealed class JobOnProductionTests(ProductionApi service) : JobTests(service), IClassFixture<ProductionApi>;
