using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using TrainingService.EndToEnd.Tests.Clients;
using TrainingService.EndToEnd.Tests.Running;
using TrainingService.Tests;

namespace TrainingService.EndToEnd.Tests.Hub;

/// <summary>A job trains from a model that only a private hub has, over a connection that breaks.</summary>
public abstract class HubJobTests(RunningService service)
{
    [Fact]
    public async Task A_job_names_a_hub_id_and_trains_from_it()
    {
        var hub = ((IHubFixture)service).Hub;
        var spec = new JsonObject
        {
            ["model"] = HubServer.Model,
            ["data"] = new JsonObject { ["train"] = await service.Upload(SmallTrainingFile.Path), ["max_length"] = 64 },
            ["schedule"] = new JsonObject { ["max_steps"] = 2, ["batch_size"] = 2 },
            ["spectra"] = new JsonObject { ["enabled"] = false },
        };
        var first = await Run(spec);
        var second = await Run(spec);

        Assert.True((string)first["status"]! == "succeeded", first.ToJsonString());
        Assert.True((string)second["status"]! == "succeeded", second.ToJsonString());
        // The header at registration, the weights as far as the cut, and their rest: two jobs, and nothing twice.
        var asked = hub.Seen.Where(request => request.IsCdn).Select(request => request.Range).ToList();
        Assert.True(asked is ["bytes=0-262143", null, { } rest] && rest != "bytes=0-", string.Join(", ", asked));
        Assert.All(hub.Seen, request => Assert.Equal(request.IsCdn ? null : $"Bearer {IHubFixture.Secret}", request.Authorization));
        var model = await service.Get($"/v1/models/{Uri.EscapeDataString(HubServer.Model)}");
        Assert.Equal(HubServer.Commit, (string?)model["hub"]!["commit"]);
        var events = (await service.Get($"/v1/jobs/{first["id"]}/events?limit=100")).ToJsonString();
        Assert.Contains($"MB of {HubServer.Model} from the hub.", events, StringComparison.Ordinal);
        Assert.DoesNotContain(IHubFixture.Secret, first.ToJsonString() + events + service.Logs, StringComparison.Ordinal);
    }

    private async Task<JsonNode> Run(JsonObject spec) =>
        await service.WaitForEnd((string)(await service.Post("/v1/jobs", spec.DeepClone()))["id"]!);
}

internal interface IHubFixture
{
    public const string Secret = "hf_endtoend0123456789";

    HubServer Hub { get; }

    /// <summary>A hub with the sample model; the first download of the weights breaks in the middle.</summary>
    static async Task<HubServer> StartAsync()
    {
        var hub = await HubServer.StartAsync();
        foreach (var file in Directory.GetFiles(Repository.Sample("model")))
        {
            hub.Files[Path.GetFileName(file)] = await File.ReadAllBytesAsync(file);
        }

        hub.Token = Secret;
        var left = 1;
        hub.Bend = async context =>
        {
            if (!HubServer.IsCdn(context) || context.Request.Headers.ContainsKey("Range") || left-- <= 0)
            {
                return false;
            }

            var weights = hub.Files["model.safetensors"];
            context.Response.ContentLength = weights.Length;
            await context.Response.Body.WriteAsync(weights.AsMemory(0, weights.Length / 2));
            await context.Response.Body.FlushAsync();
            await Task.Delay(300);   // a connection that breaks takes along what has not been read
            return HubServer.Cut(context);
        };
        return hub;
    }

    static Dictionary<string, string> With(IReadOnlyDictionary<string, string> settings, HubServer hub) => new(settings)
    {
        ["Hub__Endpoint"] = hub.Url,
        ["Hub__TokenVariable"] = "END_TO_END_HUB_TOKEN",
        ["Hub__RetrySeconds"] = "0.1",
        ["END_TO_END_HUB_TOKEN"] = Secret,
    };
}

public sealed class EmbeddedServiceWithHub : EmbeddedService, IHubFixture
{
    private HubServer? _hub;

    HubServer IHubFixture.Hub => _hub!;

    protected override IReadOnlyDictionary<string, string> Settings => IHubFixture.With(base.Settings, _hub!);

    protected override async Task StartProcesses()
    {
        _hub = await IHubFixture.StartAsync();
        await base.StartProcesses();
    }
}

public sealed class ProductionServiceWithHub : ProductionService, IHubFixture
{
    private HubServer? _hub;

    HubServer IHubFixture.Hub => _hub!;

    protected override IReadOnlyDictionary<string, string> Settings => IHubFixture.With(base.Settings, _hub!);

    protected override async Task StartProcesses()
    {
        _hub = await IHubFixture.StartAsync();
        await base.StartProcesses();
    }
}

public sealed class HubJobOnEmbeddedTests(EmbeddedServiceWithHub service) : HubJobTests(service), IClassFixture<EmbeddedServiceWithHub>;

public sealed class HubJobOnProductionTests(ProductionServiceWithHub service) : HubJobTests(service), IClassFixture<ProductionServiceWithHub>;
