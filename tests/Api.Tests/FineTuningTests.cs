using System.ClientModel;
using System.Text.Json.Nodes;
using OpenAI;
using OpenAI.Files;
using OpenAI.FineTuning;

namespace TrainingService.Api.Tests;

#pragma warning disable OPENAI001 // Fine-tuning is marked experimental in the package; it is what its users call.

public abstract class FineTuningTests(ApiService service) : ApiTests(service)
{
    [Fact]
    public async Task Hyperparameters_become_schedule_and_optimizer()
    {
        var body = await Body();
        body["method"] = Supervised(new JsonObject { ["n_epochs"] = 2, ["batch_size"] = 4, ["learning_rate_multiplier"] = 1.5 });
        var (status, job) = await Post("/v1/fine_tuning/jobs", body);
        Assert.True(status == 200, job.ToJsonString());
        Assert.Equal(2, (int)job["schedule"]!["epochs"]!);
        Assert.Equal(4, (int)job["schedule"]!["batch_size"]!);
        Assert.Equal(3e-4, (double)job["optimizer"]!["learning_rate"]!, 1e-12);
        Assert.Equal(1.5, (double)job["hyperparameters"]!["learning_rate_multiplier"]!);
        Assert.Equal(2, (int)job["method"]!["supervised"]!["hyperparameters"]!["n_epochs"]!);
        var (_, native) = await Get($"/v1/jobs/{job["id"]}");
        Assert.Equal(4, (int)native["spec"]!["schedule"]!["batch_size"]!);
    }

    [Fact]
    public async Task Auto_means_the_defaults_of_the_spec()
    {
        var body = await Body();
        body["hyperparameters"] = new JsonObject { ["n_epochs"] = "auto", ["batch_size"] = "auto", ["learning_rate_multiplier"] = "auto" };
        var (_, job) = await Post("/v1/fine_tuning/jobs", body);
        Assert.Equal(3, (int)job["schedule"]!["epochs"]!);
        Assert.Equal(8, (int)job["schedule"]!["batch_size"]!);
        Assert.Equal(2e-4, (double)job["optimizer"]!["learning_rate"]!);
    }

    [Fact]
    public async Task An_adapter_config_of_peft_can_be_pasted()
    {
        var body = await Body();
        body["peft"] = JsonNode.Parse("""
            {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "use_rslora": true, "target_modules": ["q_proj"],
             "bias": "none", "task_type": "CAUSAL_LM", "inference_mode": true, "fan_in_fan_out": false, "modules_to_save": null,
             "init_lora_weights": true, "rank_pattern": {}, "base_model_name_or_path": "x", "megatron_config": null}
            """);
        var (status, job) = await Post("/v1/fine_tuning/jobs", body);
        Assert.True(status == 200, job.ToJsonString());
        Assert.Equal(4, (int)job["adapter"]!["rank"]!);
        Assert.Equal(8, (int)job["adapter"]!["alpha"]!);
        Assert.True((bool)job["adapter"]!["use_rslora"]!);
    }

    [Fact]
    public async Task Errors_name_the_member_that_the_client_wrote()
    {
        var body = await Body();
        body["peft"] = new JsonObject { ["r"] = 0, ["use_dora"] = true };
        body["method"] = Supervised(new JsonObject { ["n_epochs"] = -1, ["beta"] = 1 });
        body["training_file"] = "file-none";
        body["integrations"] = new JsonArray(new JsonObject { ["type"] = "wandb" });
        body["colour"] = "red";
        var (status, answer) = await Post("/v1/fine_tuning/jobs", body);
        Assert.Equal(400, status);
        Assert.Equal(
            ["colour", "integrations", "method.supervised.hyperparameters.beta", "method.supervised.hyperparameters.n_epochs", "peft.r", "peft.use_dora", "training_file"],
            answer["errors"]!.AsArray().Select(error => (string)error!["param"]!).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task Missing_members_and_foreign_methods_are_refused()
    {
        var (_, answer) = await Post("/v1/fine_tuning/jobs", new JsonObject());
        Assert.Contains("training_file", answer["errors"]!.AsArray().Select(error => (string?)error!["param"]));
        var body = await Body();
        body["method"] = new JsonObject { ["type"] = "reinforcement" };
        AssertError(await Post("/v1/fine_tuning/jobs", body), 400, "unsupported_method", "method.type");
        body.Remove("method");
        body["model"] = "nobody";
        AssertError(await Post("/v1/fine_tuning/jobs", body), 400, "model_not_available", "model");
    }

    [Fact]
    public async Task Preferences_are_a_method_of_their_own()
    {
        var body = await Body();
        body["method"] = Dpo(new JsonObject { ["n_epochs"] = 2, ["batch_size"] = 4, ["learning_rate_multiplier"] = 0.5, ["beta"] = 0.25 });
        body["objective"] = new JsonObject { ["type"] = "dpo", ["loss"] = "ipo" };
        var (status, job) = await Post("/v1/fine_tuning/jobs", body);
        Assert.True(status == 200, job.ToJsonString());
        Assert.Equal("dpo", (string)job["objective"]!["type"]!);
        Assert.Equal(0.25, (double)job["objective"]!["beta"]!);
        Assert.Equal("ipo", (string)job["objective"]!["loss"]!);
        Assert.Equal("dpo", (string)job["method"]!["type"]!);
        Assert.Equal(0.25, (double)job["method"]!["dpo"]!["hyperparameters"]!["beta"]!);
        Assert.Equal(4, (int)job["method"]!["dpo"]!["hyperparameters"]!["batch_size"]!);
        Assert.Null(job["hyperparameters"]!["beta"]);

        body.Remove("objective");
        body["method"] = Dpo(new JsonObject { ["beta"] = "auto" });
        (_, job) = await Post("/v1/fine_tuning/jobs", body);
        Assert.Equal(0.1, (double)job["method"]!["dpo"]!["hyperparameters"]!["beta"]!);

        body["method"] = Dpo(new JsonObject { ["beta"] = -1 });
        AssertError(await Post("/v1/fine_tuning/jobs", body), 400, "invalid_value", "method.dpo.hyperparameters.beta");
        body["method"] = Dpo(new JsonObject { ["beta"] = 1000 });
        var (tooMuch, answer) = await Post("/v1/fine_tuning/jobs", body);
        Assert.Equal(400, tooMuch);
        Assert.Equal("method.dpo.hyperparameters.beta", (string)answer["errors"]![0]!["param"]!);
    }

    [Fact]
    public async Task The_official_dotnet_package_trains_on_preferences()
    {
        var client = new OpenAIClient(new ApiKeyCredential("none"), new OpenAIClientOptions { Endpoint = new Uri(Http.BaseAddress!, "/v1") });
        var body = await Body();
        var jobs = client.GetFineTuningClient();
        var job = await jobs.FineTuneAsync(
            (string)body["model"]!, (string)body["training_file"]!, waitUntilCompleted: false,
            new FineTuningOptions { TrainingMethod = FineTuningTrainingMethod.CreateDirectPreferenceOptimization(epochCount: 2, betaFactor: 1) },
            Cancellation);

        Assert.Equal(1, Assert.IsType<HyperparametersForDPO>(job.MethodHyperparameters).Beta);
        var (_, read) = await Get($"/v1/fine_tuning/jobs/{job.JobId}");
        Assert.Equal(1, (double)read["objective"]!["beta"]!);
        await job.CancelAndUpdateAsync(Cancellation);
    }

    [Fact]
    public async Task The_official_dotnet_package_creates_lists_and_cancels()
    {
        var client = new OpenAIClient(new ApiKeyCredential("none"), new OpenAIClientOptions { Endpoint = new Uri(Http.BaseAddress!, "/v1") });
        var model = await RegisterModel();
        using var rows = new MemoryStream(System.Text.Encoding.UTF8.GetBytes("{\"prompt\":\"a\",\"completion\":\"b\"}\n"));
        OpenAIFile file = await client.GetOpenAIFileClient().UploadFileAsync(rows, "train.jsonl", FileUploadPurpose.FineTune, Cancellation);
        var jobs = client.GetFineTuningClient();
        var job = await jobs.FineTuneAsync(
            model, file.Id, waitUntilCompleted: false,
            new FineTuningOptions { TrainingMethod = FineTuningTrainingMethod.CreateSupervised(epochCount: 3), Seed = 5, Suffix = "dotnet" },
            Cancellation);
        Assert.Equal(model, job.BaseModel);
#pragma warning disable CS0618 // Marked as old in the package; its users read it still.
        Assert.Equal(3, job.Hyperparameters.EpochCount);
#pragma warning restore CS0618

        var read = await jobs.GetJobAsync(job.JobId, Cancellation);
        Assert.Equal(FineTuningStatus.Queued, read.Status);
        var events = new List<FineTuningEvent>();
        await foreach (var line in read.GetEventsAsync(new GetEventsOptions { PageSize = 1 }))
        {
            events.Add(line);
        }

        Assert.Single(events);
        await foreach (var _ in read.GetCheckpointsAsync(new GetCheckpointsOptions { PageSize = 1 }))
        {
            Assert.Fail("A job that has not run has no checkpoint.");
        }

        var seen = new List<string>();
        await foreach (var listed in jobs.GetJobsAsync(new FineTuningJobCollectionOptions { PageSize = 2 }, Cancellation))
        {
            seen.Add(listed.JobId);
        }

        Assert.Contains(job.JobId, seen);
        Assert.Equal(seen.Count, seen.Distinct().Count());
        await read.CancelAndUpdateAsync(Cancellation);
        Assert.Equal(FineTuningStatus.Cancelled, read.Status);
        var models = await client.GetOpenAIModelClient().GetModelsAsync(Cancellation);
        Assert.Contains(models.Value, entry => entry.Id == model);
    }

    private static JsonObject Dpo(JsonObject hyperparameters) => new()
    {
        ["type"] = "dpo",
        ["dpo"] = new JsonObject { ["hyperparameters"] = hyperparameters },
    };

    private static JsonObject Supervised(JsonObject hyperparameters) => new()
    {
        ["type"] = "supervised",
        ["supervised"] = new JsonObject { ["hyperparameters"] = hyperparameters },
    };

    private async Task<JsonObject> Body() => new() { ["model"] = await RegisterModel(), ["training_file"] = await UploadRows() };
}

public sealed class FineTuningOnEmbeddedTests(EmbeddedApi service) : FineTuningTests(service), IClassFixture<EmbeddedApi>;

public sealed class FineTuningOnProductionTests(ProductionApi service) : FineTuningTests(service), IClassFixture<ProductionApi>;
