using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using TrainingService.Api;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Projects;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Health;
using TrainingService.Worker;

namespace TrainingService.EndToEnd.Tests.Deployment;

public sealed class HealthTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("health-").FullName;

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task With_servers_that_swallow_packets_the_process_lives_and_says_soon_that_it_is_not_ready()
    {
        using var silent = new TcpListener(IPAddress.Loopback, 0);
        silent.Start();   // takes connections and never answers
        var address = silent.LocalEndpoint.ToString()!;
        await using var app = ApiApplication.Build(
        [
            "--urls=http://127.0.0.1:0", $"--DataFolder={_folder}", "--Profile=production", "--Logging:LogLevel:Default=None", "--Logging:LogLevel:Microsoft.EntityFrameworkCore=None",
            $"--ConnectionStrings:Postgres=Host=127.0.0.1;Port={address.Split(':')[1]};Username=u;Password=hunter2;Timeout=2", $"--S3:Endpoint={address}",
            "--S3:AccessKey=someone", "--S3:SecretKey=hunter2", "--S3:UseTls=false", "--Health:TimeoutSeconds=0.5",
        ]);
        await app.StartAsync(Cancel);
        using var http = Client(app);
        for (var i = 0; i < 3; i++)
        {
            var watch = Stopwatch.StartNew();
            Assert.Equal(200, (await GetAsync(http, "/health/live")).Status);
            var (status, body) = await GetAsync(http, "/health/ready");

            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(5), $"A probe took {watch.Elapsed}.");
            Assert.Equal(503, status);
            Assert.Equal(
                ("unhealthy", "unhealthy", "healthy"),
                ((string?)body["checks"]!["database"]!["status"], (string?)body["checks"]!["store"]!["status"], (string?)body["checks"]!["space"]!["status"]));
            Assert.DoesNotContain("hunter2", body.ToJsonString(), StringComparison.Ordinal);
            Assert.DoesNotContain(address.Split(':')[1], body.ToJsonString(), StringComparison.Ordinal);
        }

        await app.StopAsync(Cancel);
    }

    [Fact]
    public async Task A_database_that_refuses_is_named_without_its_address()
    {
        await using var app = ApiApplication.Build(
        [
            "--urls=http://127.0.0.1:0", $"--DataFolder={_folder}", "--Profile=production", "--Logging:LogLevel:Default=None", "--Logging:LogLevel:Microsoft.EntityFrameworkCore=None",
            "--ConnectionStrings:Postgres=Host=127.0.0.1;Port=1;Username=u;Password=hunter2;Timeout=2", "--S3:Endpoint=127.0.0.1:1",
            "--S3:AccessKey=someone", "--S3:SecretKey=hunter2", "--S3:UseTls=false",
        ]);
        await app.StartAsync(Cancel);
        using var http = Client(app);

        var (status, body) = await GetAsync(http, "/health/ready");

        Assert.Equal((503, "unhealthy"), (status, (string?)body["checks"]!["database"]!["status"]));
        Assert.Contains("does not answer", (string?)body["checks"]!["database"]!["description"], StringComparison.Ordinal);
        Assert.DoesNotContain("127.0.0.1", body.ToJsonString(), StringComparison.Ordinal);
        await app.StopAsync(Cancel);
    }

    [Fact]
    public async Task A_worker_is_ready_when_it_can_be_woken_and_not_while_a_lease_of_its_own_has_run_out()
    {
        await using var app = ApiApplication.Build(
        [
            "--urls=http://127.0.0.1:0", $"--DataFolder={_folder}", "--Logging:LogLevel:Default=Error", "--Health:KeepSeconds=0",
            "--Reconciler:IntervalSeconds=3600",
        ]);
        await app.StartAsync(Cancel);
        using var http = Client(app);
        var patience = Stopwatch.StartNew();
        var (status, body) = await GetAsync(http, "/health/ready");
        while (status != 200 && patience.Elapsed < TimeSpan.FromSeconds(30))
        {
            await Task.Delay(50, Cancel);
            (status, body) = await GetAsync(http, "/health/ready");
        }

        Assert.True(status == 200, body.ToJsonString());
        Assert.Equal(["database", "space", "store", "work_space", "worker"], body["checks"]!.AsObject().Select(check => check.Key).Order(StringComparer.Ordinal));

        await using (var db = await app.Services.GetRequiredService<IDbContextFactory<AppDbContext>>().CreateDbContextAsync(Cancel))
        {
            var past = TimeProvider.System.GetUtcNow().AddHours(-1);
            var job = TrainingJob.Submit(new NewJob { ProjectId = Project.BuiltIn, SpecJson = "{}", RequestJson = "{}", Model = "tiny" }, past);
            job.Start(WorkerName.Value, TimeSpan.FromMinutes(1), past);
            db.Jobs.Add(job);
            await db.SaveChangesAsync(Cancel);
        }

        (status, body) = await GetAsync(http, "/health/ready");
        Assert.Equal((503, "unhealthy"), (status, (string?)body["checks"]!["worker"]!["status"]));
        await app.StopAsync(Cancel);
    }

    [Fact]
    public async Task Too_little_space_is_a_fault()
    {
        await using var app = ApiApplication.Build(
            ["--urls=http://127.0.0.1:0", $"--DataFolder={_folder}", "--Logging:LogLevel:Default=Error", "--Worker:Enabled=false", $"--Health:LeastFreeBytes={long.MaxValue}"]);
        await app.StartAsync(Cancel);
        using var http = Client(app);

        var (status, body) = await GetAsync(http, "/health/ready");

        Assert.Equal(503, status);
        Assert.Contains("MiB are free", (string?)body["checks"]!["space"]!["description"], StringComparison.Ordinal);
        await app.StopAsync(Cancel);
    }

    [Fact]
    public async Task The_verb_health_asks_a_running_process()
    {
        await using var app = ApiApplication.Build(
            ["--urls=http://127.0.0.1:0", $"--DataFolder={_folder}", "--Logging:LogLevel:Default=Error", "--Worker:Enabled=false"]);
        await app.StartAsync(Cancel);
        using var http = Client(app);
        var output = new StringWriter();

        Assert.Equal(0, await HealthProbe.RunAsync($"{http.BaseAddress}health/live", output));
        Assert.Equal(1, await HealthProbe.RunAsync($"{http.BaseAddress}absent", output));
        Assert.Equal(1, await HealthProbe.RunAsync("http://127.0.0.1:1/health/live", output));
        Assert.Equal(1, await HealthProbe.RunAsync(null, output));
        await app.StopAsync(Cancel);
    }

    [Fact]
    public async Task Files_of_the_secrets_folder_are_settings_and_win()
    {
        var secrets = Directory.CreateDirectory(Path.Combine(_folder, "secrets")).FullName;
        await File.WriteAllTextAsync(Path.Combine(secrets, "Auth__ApiKey"), "from-a-file\n", Cancel);
        await using var app = ApiApplication.Build(
            ["--urls=http://127.0.0.1:0", $"--DataFolder={_folder}", "--Logging:LogLevel:Default=Error", "--Worker:Enabled=false",
             "--Auth:ApiKey=from-the-command-line", $"--SecretsFolder={secrets}"]);
        await app.StartAsync(Cancel);
        using var http = Client(app);

        http.DefaultRequestHeaders.Authorization = new("Bearer", "from-the-command-line");
        Assert.Equal(401, (await GetAsync(http, "/v1/jobs")).Status);
        http.DefaultRequestHeaders.Authorization = new("Bearer", "from-a-file");
        Assert.Equal(200, (await GetAsync(http, "/v1/jobs")).Status);
        await app.StopAsync(Cancel);
    }

    public void Dispose()
    {
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        Directory.Delete(_folder, recursive: true);
    }

    private static HttpClient Client(WebApplication app) => new()
    {
        BaseAddress = new Uri(app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First()),
    };

    private static async Task<(int Status, JsonNode Body)> GetAsync(HttpClient http, string path)
    {
        using var answer = await http.GetAsync(new Uri(path, UriKind.Relative), Cancel);
        var text = await answer.Content.ReadAsStringAsync(Cancel);
        return ((int)answer.StatusCode, text.Length > 0 ? JsonNode.Parse(text)! : new JsonObject());
    }
}
