using System.Text;
using System.Text.Json.Nodes;
using TrainingService.Tests;

namespace TrainingService.Api.Tests.Hub;

/// <summary>Models from the hub over HTTP: no weights pass through the API.</summary>
public abstract class HubModelTests(ApiService service) : ApiTests(service)
{
    private HubServer Hub => ((IHubFixture)Service).Hub;

    [Fact]
    public async Task A_model_is_registered_by_its_hub_id_and_its_weights_stay_there()
    {
        Reset();
        var (status, model) = await Post("/v1/models", new JsonObject { ["name"] = Name(), ["hub"] = HubServer.Model, ["revision"] = "main" });

        Assert.True(status == 200, model.ToJsonString());
        Assert.Equal((HubServer.Model, "main", HubServer.Commit), ((string?)model["hub"]!["id"], (string?)model["hub"]!["revision"], (string?)model["hub"]!["commit"]));
        Assert.Equal("LlamaForCausalLM", (string?)model["architecture"]);
        Assert.Equal(Hub.Files["config.json"].Length + Hub.Files["model.safetensors"].Length, (long)model["bytes"]!);
        var weights = model["files"]!.AsArray().Single(file => (string?)file!["path"] == "model.safetensors")!;
        Assert.True((bool)weights["remote"]!);
        Assert.Equal(HubServer.Sha256(Hub.Files["model.safetensors"]), (string?)weights["sha256"]);
        Assert.All(Hub.Seen.Where(request => request.IsCdn), request => Assert.StartsWith("bytes=0-", request.Range, StringComparison.Ordinal));
        Assert.Empty(Directory.GetFileSystemEntries(Path.Combine(Service.Folder, "incoming"), "model-*"));
        Assert.Equal(200, (await Send(new HttpRequestMessage(HttpMethod.Delete, $"/v1/models/{model["id"]}"))).Status);
    }

    [Fact]
    public async Task A_job_may_name_a_hub_id_and_registers_it()
    {
        Reset();
        var name = $"{HubServer.Model}@{HubServer.Commit}";
        var spec = await Spec();
        spec["model"] = name;
        var (status, job) = await Post("/v1/jobs", spec);
        Assert.True(status == 201, job.ToJsonString());
        var (_, model) = await Get($"/v1/models/{Uri.EscapeDataString(name)}");
        Assert.Equal(HubServer.Commit, (string?)model["hub"]!["revision"]);

        var asked = Hub.Seen.Count;
        Assert.Equal(200, (await Post("/v1/jobs/estimate", spec.DeepClone())).Status);
        Assert.Equal(asked, Hub.Seen.Count);
    }

    [Theory]
    [InlineData("org/missing", "hub_model_not_found", "no model 'org/missing'")]
    [InlineData("org/tiny@nowhere", "hub_model_not_found", "no revision 'nowhere'")]
    public async Task A_job_with_a_hub_id_that_cannot_be_had_says_why(string name, string code, string words)
    {
        Reset();
        var spec = await Spec();
        spec["model"] = name;
        var error = AssertError(await Post("/v1/jobs", spec), 400, code, "model");
        Assert.Contains(words, (string)error["message"]!, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Shards_are_those_that_the_index_names()
    {
        Reset();
        var weights = Hub.Files["model.safetensors"];
        Hub.Files.Remove("model.safetensors");
        Hub.Files["model-00001-of-00001.safetensors"] = weights;
        Hub.Files["consolidated.safetensors"] = [1, 2, 3];
        var names = Training.Models.ModelConfig.Parse(TinyModel.Config).Weights.Select(weight => weight.Name);
        var map = new JsonObject(names.Select(name => KeyValuePair.Create<string, JsonNode?>(name, "model-00001-of-00001.safetensors")));
        Hub.Files["model.safetensors.index.json"] = Encoding.UTF8.GetBytes(new JsonObject { ["weight_map"] = map }.ToJsonString());

        var (status, model) = await Register();
        Assert.True(status == 200, model.ToJsonString());
        Assert.Equal(
            ["config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json"], model["files"]!.AsArray().Select(file => (string?)file!["path"]));

        map["lm_head.weight"] = "model-00002-of-00002.safetensors";
        Hub.Files["model.safetensors.index.json"] = Encoding.UTF8.GetBytes(new JsonObject { ["weight_map"] = map.DeepClone() }.ToJsonString());
        AssertError(await Register(), 400, "hub_model_invalid", "hub");
    }

    [Theory]
    [InlineData("""{"weight_map":{"a":"../../etc/passwd"}}""")]
    [InlineData("""{"weight_map":{"a":7}}""")]
    [InlineData("""{"weight_map":[]}""")]
    [InlineData("[")]
    public async Task An_index_that_is_none_is_refused(string index)
    {
        Reset();
        Hub.Files.Remove("model.safetensors");
        Hub.Files["model-00001-of-00001.safetensors"] = TinyModel.Weights();
        Hub.Files["model.safetensors.index.json"] = Encoding.UTF8.GetBytes(index);
        AssertError(await Register(), 400, "hub_model_invalid", "hub");
    }

    [Fact]
    public async Task Weights_of_another_shape_are_refused_before_they_are_fetched()
    {
        Reset();
        Hub.Files["model.safetensors"] = TinyModel.Weights(shapes => shapes["model.norm.weight"] = [8]);
        AssertError(await Register(), 400, "invalid_data", "model.norm.weight");
        Assert.Empty(Directory.GetFileSystemEntries(Path.Combine(Service.Folder, "incoming"), "model-*"));
    }

    [Fact]
    public async Task A_header_that_lies_about_its_length_is_refused()
    {
        Reset();
        var weights = TinyModel.Weights();
        weights[7] = 0x7f;
        Hub.Files["model.safetensors"] = weights;
        AssertError(await Register(), 400, "invalid_data");
    }

    [Fact]
    public async Task A_pickle_alone_is_refused_with_the_way_to_convert_it()
    {
        Reset();
        Hub.Files.Remove("model.safetensors");
        Hub.Files["pytorch_model.bin"] = [0x80, 2];
        var error = AssertError(await Register(), 400, "hub_model_invalid", "hub");
        Assert.Contains("safe_serialization=True", (string)error["message"]!, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_gated_model_says_what_its_user_must_do()
    {
        Reset();
        Hub.Bend = context => Task.FromResult(context.Request.Path.Value!.Contains("/resolve/", StringComparison.Ordinal) && HubServer.Status(context, 403, "GatedRepo"));
        AssertError(await Register(), 400, "hub_model_denied", "hub");
    }

    [Fact]
    public async Task A_hub_in_trouble_is_no_fault_of_the_request()
    {
        Reset();
        Hub.Bend = context => Task.FromResult(HubServer.Status(context, 503));
        var (status, body) = await Register();
        Assert.Equal((502, "server_error", "hub_unreachable"), (status, (string?)body["error"]!["type"], (string?)body["error"]!["code"]));
    }

    [Theory]
    [InlineData("""{"name":"x"}""", "invalid_source")]
    [InlineData("""{"name":"x","hub":"org/tiny","path":"/tmp"}""", "invalid_source")]
    [InlineData("""{"name":"x","path":"/tmp","revision":"main"}""", "invalid_source")]
    [InlineData("""{"name":"x","hub":"../../etc"}""", "hub_model_invalid")]
    [InlineData("""{"name":"x","hub":"org/tiny","revision":"a b"}""", "hub_model_invalid")]
    public async Task A_request_names_one_source(string body, string code)
    {
        Reset();
        AssertError(await Post("/v1/models", JsonNode.Parse(body)), 400, code);
        Assert.Empty(Hub.Seen);
    }

    private static string Name() => $"hub-{Guid.NewGuid():N}";

    private Task<(int Status, JsonNode Body)> Register() => Post("/v1/models", new JsonObject { ["name"] = Name(), ["hub"] = HubServer.Model });

    /// <summary>The hub as it was at the start; tests of a class run one after the other.</summary>
    private void Reset()
    {
        Hub.Seen.Clear();
        Hub.Bend = _ => Task.FromResult(false);
        Hub.Files.Clear();
        Hub.Files["config.json"] = Encoding.UTF8.GetBytes(TinyModel.Config);
        Hub.Files["model.safetensors"] = TinyModel.Weights();
    }
}

internal interface IHubFixture
{
    HubServer Hub { get; }
}

public sealed class EmbeddedApiWithHub : EmbeddedApi, IHubFixture
{
    private HubServer? _hub;

    HubServer IHubFixture.Hub => _hub!;

    protected override IEnumerable<string> Settings => [.. base.Settings, $"--Hub:Endpoint={_hub!.Url}", "--Hub:RetrySeconds=0.01"];

    protected override async Task PrepareAsync()
    {
        await base.PrepareAsync();
        _hub = await HubServer.StartAsync();
    }
}

public sealed class ProductionApiWithHub : ProductionApi, IHubFixture
{
    private HubServer? _hub;

    HubServer IHubFixture.Hub => _hub!;

    protected override IEnumerable<string> Settings => [.. base.Settings, $"--Hub:Endpoint={_hub!.Url}", "--Hub:RetrySeconds=0.01"];

    protected override async Task PrepareAsync()
    {
        await base.PrepareAsync();
        _hub = await HubServer.StartAsync();
    }
}

public sealed class HubModelOnEmbeddedTests(EmbeddedApiWithHub service) : HubModelTests(service), IClassFixture<EmbeddedApiWithHub>;

public sealed class HubModelOnProductionTests(ProductionApiWithHub service) : HubModelTests(service), IClassFixture<ProductionApiWithHub>;
