using System.Net.Http.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Tests;

/// <summary>The API on a free port of this machine with data of its own. No worker runs, so a job stays as it is until a test moves it.</summary>
public abstract class ApiService : IAsyncLifetime
{
    private WebApplication? _app;

    protected ApiService() => Folder = Directory.CreateTempSubdirectory("training-api-").FullName;

    public string Folder { get; }

    public HttpClient Http { get; private set; } = new();

    public IServiceProvider Services => _app!.Services;

    /// <summary>What this machine lacks; null when the profile can be tested.</summary>
    public virtual string? Missing => null;

    protected virtual IEnumerable<string> Settings => [];

    public async ValueTask InitializeAsync()
    {
        if (Missing is not null)
        {
            return;
        }

        await PrepareAsync();
        _app = ApiApplication.Build(
            ["--urls=http://127.0.0.1:0", $"--DataFolder={Folder}", "--Worker:Enabled=false", "--Logging:LogLevel:Default=Error", "--Files:LargestFileBytes=2000000", "--Models:LargestArchiveBytes=3000000", .. Settings]);
        await Services.GetRequiredService<DatabaseMigrator>().MigrateAsync(CancellationToken.None);
        await _app.StartAsync();
        var address = Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First();
        Http = new HttpClient { BaseAddress = new Uri(address) };
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        Http.Dispose();
        if (_app is not null)
        {
            await _app.StopAsync();
            await _app.DisposeAsync();
        }

        Directory.Delete(Folder, recursive: true);
    }

    public Task<AppDbContext> OpenAsync() =>
        Services.GetRequiredService<IDbContextFactory<AppDbContext>>().CreateDbContextAsync(TestContext.Current.CancellationToken);

    protected virtual Task PrepareAsync() => Task.CompletedTask;
}

public class EmbeddedApi : ApiService;

public class ProductionApi : ApiService
{
    private static readonly string[] Needed =
        ["TRAINING_TEST_POSTGRES", "TRAINING_TEST_S3_ENDPOINT", "TRAINING_TEST_S3_ACCESS_KEY", "TRAINING_TEST_S3_SECRET_KEY"];

    private readonly string _name = $"api{Guid.NewGuid():N}";

    public override string? Missing => Needed.FirstOrDefault(variable => string.IsNullOrEmpty(Environment.GetEnvironmentVariable(variable)));

    protected override IEnumerable<string> Settings =>
    [
        "--Profile=production",
        $"--ConnectionStrings:Postgres={new NpgsqlConnectionStringBuilder(Variable(0)) { Database = _name }.ConnectionString}",
        $"--S3:Endpoint={Variable(1)}",
        $"--S3:AccessKey={Variable(2)}",
        $"--S3:SecretKey={Variable(3)}",
        $"--S3:Bucket={_name}",
        "--S3:UseTls=false",
        $"--Models:Roots:0={Folder}",
    ];

    protected override async Task PrepareAsync()
    {
        await using var server = new NpgsqlConnection(Variable(0));
        await server.OpenAsync();
        await using var create = new NpgsqlCommand($"CREATE DATABASE {_name}", server);
        await create.ExecuteNonQueryAsync();
    }

    private static string Variable(int index) => Environment.GetEnvironmentVariable(Needed[index])!;
}

/// <summary>Calls that most tests make.</summary>
public abstract class ApiTests
{
    protected ApiTests(ApiService service)
    {
        Service = service;
        if (service.Missing is { } variable)
        {
            var message = $"{variable} is not set: run scripts/test.sh, which starts PostgreSQL and an S3 server.";
            Assert.SkipUnless(Environment.GetEnvironmentVariable("CI") == "true", message);
            Assert.Fail(message);
        }
    }

    protected ApiService Service { get; }

    protected HttpClient Http => Service.Http;

    protected static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    protected Task<(int Status, JsonNode Body)> Get(string path) => Send(new HttpRequestMessage(HttpMethod.Get, path));

    protected Task<(int Status, JsonNode Body)> Post(string path, JsonNode? body = null, params (string Name, string Value)[] headers)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = body is null ? null : JsonContent.Create(body) };
        foreach (var (name, value) in headers)
        {
            request.Headers.Add(name, value);
        }

        return Send(request);
    }

    protected async Task<(int Status, JsonNode Body)> Send(HttpRequestMessage request)
    {
        using var answer = await Http.SendAsync(request, Cancellation);
        Assert.True(answer.Headers.Contains("x-request-id"));
        var text = await answer.Content.ReadAsStringAsync(Cancellation);
        return ((int)answer.StatusCode, text.Length == 0 ? new JsonObject() : JsonNode.Parse(text)!);
    }

    protected async Task<(int Status, JsonNode Body)> Upload(
        string path, string fileName, byte[] content, params (string Name, string Value)[] fields)
    {
        using var form = new MultipartFormDataContent();
        foreach (var (name, value) in fields)
        {
            form.Add(new StringContent(value), name);
        }

        form.Add(new ByteArrayContent(content), "file", fileName);
        return await Send(new HttpRequestMessage(HttpMethod.Post, path) { Content = form });
    }

    protected async Task<string> UploadRows(string fileName = "train.jsonl")
    {
        var rows = string.Concat(Enumerable.Range(0, 20).Select(i => $"{{\"prompt\":\"question {i}\",\"completion\":\"answer {i}\"}}\n"));
        var (status, body) = await Upload("/v1/files", fileName, System.Text.Encoding.UTF8.GetBytes(rows), ("purpose", "fine-tune"));
        Assert.True(status == 200, body.ToJsonString());
        return (string)body["id"]!;
    }

    protected async Task<string> RegisterModel(string? name = null)
    {
        var folder = TinyModel.Write(Path.Combine(Service.Folder, $"model-{Guid.NewGuid():N}"));
        var (status, body) = await Post("/v1/models", new JsonObject { ["name"] = name ?? $"tiny-{Guid.NewGuid():N}", ["path"] = folder });
        Assert.True(status == 200, body.ToJsonString());
        return (string)body["id"]!;
    }

    protected async Task<JsonObject> Spec() => new()
    {
        ["model"] = await RegisterModel(),
        ["data"] = new JsonObject { ["train"] = await UploadRows() },
        ["schedule"] = new JsonObject { ["max_steps"] = 10 },
    };

    protected async Task<string> CreateJob(JsonObject? spec = null)
    {
        var (status, body) = await Post("/v1/jobs", spec ?? await Spec());
        Assert.True(status == 201, body.ToJsonString());
        return (string)body["id"]!;
    }

    /// <summary>Asserts an error of the envelope and returns the first one.</summary>
    protected static JsonNode AssertError((int Status, JsonNode Body) answer, int status, string code, string? param = null)
    {
        Assert.True(answer.Status == status, $"{answer.Status}: {answer.Body.ToJsonString()}");
        var error = answer.Body["error"]!;
        Assert.Equal(code, (string?)error["code"]);
        Assert.Equal("invalid_request_error", (string?)error["type"]);
        Assert.DoesNotContain(" at TrainingService.", answer.Body.ToJsonString(), StringComparison.Ordinal);
        if (param is not null)
        {
            Assert.Equal(param, (string?)error["param"]);
        }

        return error;
    }
}
