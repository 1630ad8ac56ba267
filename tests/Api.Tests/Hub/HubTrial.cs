using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using TrainingService.Infrastructure.Hub;
using TrainingService.Tests;

namespace TrainingService.Api.Tests.Hub;

/// <summary>A hub with a tiny model, its client, and an empty folder.</summary>
internal sealed class HubTrial : IAsyncDisposable
{
    private readonly HubHttp _http;

    private HubTrial(HubServer server, HubOptions options, HubNetwork network)
    {
        Server = server;
        var settings = Options.Create(options);
        _http = new HubHttp(settings, network);
        Client = new HubClient(_http, settings, TimeProvider.System);
        Download = new HubDownload(_http, Client, TimeProvider.System, NullLogger<HubDownload>.Instance);
    }

    public HubServer Server { get; }

    public HubClient Client { get; }

    public HubDownload Download { get; }

    public string Folder { get; } = Directory.CreateTempSubdirectory("training-hub-").FullName;

    public string Target => Path.Combine(Folder, "model.safetensors");

    /// <summary>The largest number of bytes that a download has told of.</summary>
    public long Most { get; private set; }

    public static HubModelId Id => HubModelId.Of(HubServer.Model, null);

    /// <param name="change">Changes the options, which are made for a hub that answers at once.</param>
    public static async Task<HubTrial> StartAsync(Func<HubOptions, HubOptions>? change = null, HubNetwork? network = null)
    {
        var server = await HubServer.StartAsync();
        server.Files["config.json"] = Encoding.UTF8.GetBytes(TinyModel.Config);
        server.Files["model.safetensors"] = TinyModel.Weights();
        server.Files["README.md"] = "# Tiny"u8.ToArray();
        var options = new HubOptions { Endpoint = server.Url, RetrySeconds = 0.01, IdleSeconds = 10 };
        return new HubTrial(server, change?.Invoke(options) ?? options, network ?? HubNetwork.Default);
    }

    public Task<HubRepository> ReadAsync() => Client.ReadRepositoryAsync(Id, TestContext.Current.CancellationToken);

    /// <summary>Fetches the weights, declared as they are unless a test declares them otherwise.</summary>
    public Task FetchAsync(HubFile? declared = null, CancellationToken? cancellationToken = null)
    {
        var weights = Server.Files["model.safetensors"];
        var file = declared ?? new HubFile("model.safetensors", weights.Length, HubServer.Sha256(weights), null);
        return Download.RunAsync(
            new HubRepository(Id, HubServer.Commit, [file]), file, Target, bytes => Most = Math.Max(Most, bytes), cancellationToken ?? TestContext.Current.CancellationToken);
    }

    /// <summary>Asserts that it fails for this reason, and leaves nothing outside its folder.</summary>
    public static async Task<HubException> FailsAsync(HubFault fault, string words, Func<Task> act)
    {
        var e = await Assert.ThrowsAsync<HubException>(act);
        Assert.True(e.Fault == fault, $"{e.Fault}: {e.Message}");
        Assert.Contains(words, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("signature=secret", e.ToString(), StringComparison.Ordinal);
        return e;
    }

    public async ValueTask DisposeAsync()
    {
        _http.Dispose();
        await Server.DisposeAsync();
        Directory.Delete(Folder, recursive: true);
    }
}
