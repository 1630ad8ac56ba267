using System.Text.Json.Nodes;
using TrainingService.Domain;
using TrainingService.Domain.Artifacts;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.Api.Tests;

/// <summary>What is said to requests for scores that cannot be answered; no model is loaded for any of them.</summary>
public abstract class ScoreTests(ApiService service) : ApiTests(service)
{
    [Fact]
    public async Task A_model_that_is_not_there_or_gives_no_rewards_is_named()
    {
        AssertError(await Post("/v1/scores", Request("ft:nobody")), 404, "not_found", "model");
        AssertError(await Post("/v1/scores", Request($"ftjob-{Guid.NewGuid():N}")), 404, "not_found", "model");
        AssertError(await Post("/v1/scores", Request(await RegisterModel())), 400, "not_a_reward_model", "model");
        var job = await CreateJob();
        AssertError(await Post("/v1/scores", Request(job)), 404, "not_found", "model");   // it has no result yet

        var error = AssertError(await Post("/v1/scores", Request(await Finish(job))), 400, "not_a_reward_model", "model");

        Assert.Contains("objective reward", (string?)error["message"], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("[]", "empty_input", "input")]
    [InlineData("""[{"prompt": "a", "responses": ["b"]}, {"prompt": "a"}]""", "invalid_input", "input[1]")]
    [InlineData("""[{"prompt": "a", "responses": []}]""", "invalid_input", "input[0].responses")]
    [InlineData("""[{"prompt": "a", "responses": ["b", ""]}]""", "invalid_input", "input[0].responses[1]")]
    [InlineData("""[{"messages": [{"role": "user", "content": "a"}]}]""", "invalid_input", "input[0].messages")]
    [InlineData("""[{"messages": [{"role": "king", "content": "a"}]}]""", "invalid_input", "input[0].messages[0].role")]
    [InlineData("""["a"]""", "invalid_input", "input[0]")]
    [InlineData("[null]", "invalid_input", "input[0]")]
    public async Task Input_that_cannot_be_scored_is_named(string input, string code, string param)
    {
        var body = new JsonObject { ["model"] = "ft:any", ["input"] = JsonNode.Parse(input) };

        AssertError(await Post("/v1/scores", body), 400, code, param);
    }

    [Fact]
    public async Task Bodies_of_another_shape_are_refused()
    {
        AssertError(await Post("/v1/scores", new JsonObject { ["model"] = "ft:any" }), 400, "invalid_json");
        AssertError(await Post("/v1/scores", new JsonObject { ["model"] = "ft:any", ["input"] = "text" }), 400, "invalid_json", "input");
        AssertError(await Post("/v1/scores", new JsonObject { ["model"] = null, ["input"] = new JsonArray() }), 400, "invalid_json", "model");
    }

    [Fact]
    public async Task More_answers_than_a_request_may_hold_are_refused()
    {
        var body = Request("ft:any");
        body["input"]![0]!["responses"] = new JsonArray([.. Enumerable.Range(0, 1025).Select(i => (JsonNode)$"answer {i}")]);

        var error = AssertError(await Post("/v1/scores", body), 400, "too_many_inputs", "input");

        Assert.Contains("1025 answers", (string?)error["message"], StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_description_tells_what_a_request_and_an_answer_hold()
    {
        var (_, document) = await Get("/openapi/v1.json");

        Assert.NotNull(document["paths"]!["/v1/scores"]!["post"]!["requestBody"]);
        Assert.NotNull(document["components"]!["schemas"]!["ScoreResponse"]!["properties"]!["percentile"]!["description"]);
    }

    private static JsonObject Request(string model) => new()
    {
        ["model"] = model,
        ["input"] = new JsonArray(new JsonObject { ["prompt"] = "question", ["responses"] = new JsonArray("answer") }),
    };

    /// <summary>Gives a job a result, as its worker would.</summary>
    private async Task<string> Finish(string id)
    {
        Assert.True(PublicId.TryParse(PublicId.Job, id, out var key));
        var (name, now) = ($"ft:{Guid.NewGuid():N}", TimeProvider.System.GetUtcNow());
        await using var db = await Service.OpenAsync();
        var job = await db.ChangeJobAsync(
            job => job.Id == key,
            job =>
            {
                job.Start("worker", TimeSpan.FromMinutes(1), now);
                job.Succeed(name, null, now);
            },
            Cancellation);
        db.Add(new Artifact
        {
            Id = Guid.CreateVersion7(),
            JobId = key,
            Attempt = job!.Attempt,
            Path = "adapter/adapter_config.json",
            Bytes = 2,
            Sha256 = new string('0', 64),
            ContentType = "application/json",
            StorageKey = "nowhere",
        });
        await db.SaveChangesAsync(Cancellation);
        return name;
    }
}

public sealed class ScoresOnEmbeddedTests(EmbeddedApi service) : ScoreTests(service), IClassFixture<EmbeddedApi>;

public sealed class ScoresOnProductionTests(ProductionApi service) : ScoreTests(service), IClassFixture<ProductionApi>;
