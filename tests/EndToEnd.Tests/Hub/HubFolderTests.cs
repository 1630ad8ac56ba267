using System.Text.Json;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using TrainingService.Domain.Models;
using TrainingService.Domain.Projects;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Hub;
using TrainingService.Infrastructure.Storage;
using TrainingService.Tests;
using TrainingService.Training;
using TrainingService.Worker;
using TrainingService.Worker.Supervision;

namespace TrainingService.EndToEnd.Tests.Hub;

/// <summary>A model from the hub in the worker's cache.</summary>
public sealed class HubFolderTests : IAsyncDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("training-hub-").FullName;
    private readonly ReportBuffer _reports = new(TimeProvider.System.GetUtcNow);
    private readonly List<ModelFileEntry> _files = [];
    private HubServer? _hub;
    private HubHttp? _http;

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Attempts_at_the_same_time_fetch_a_model_once()
    {
        var (one, model) = await StartAsync();
        var (two, _) = (Folders(), 0);
        var folders = await Task.WhenAll(FetchAsync(one, model), FetchAsync(two, model), FetchAsync(one, model));

        Assert.Single(folders.Distinct());
        Assert.Equal(["config.json", "model.safetensors"], Directory.GetFiles(folders[0]).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        Assert.Single(_hub!.Seen, request => request.IsCdn);
        Assert.Equal($"Fetched 0.2 of 0.2 MB of {HubServer.Model} from the hub.", _reports.Take()!.Events[^1].Message);
    }

    [Fact]
    public async Task What_a_killed_worker_left_is_completed()
    {
        var (folders, model) = await StartAsync();
        var folder = await FetchAsync(folders, model);
        var growing = Path.Combine(_folder, "worker", "hub", Path.GetFileName(folder));
        Directory.Move(folder, growing);
        var weights = await File.ReadAllBytesAsync(Path.Combine(growing, "model.safetensors"), Cancel);
        File.Delete(Path.Combine(growing, "model.safetensors"));
        await File.WriteAllBytesAsync(Path.Combine(growing, "model.safetensors.part"), weights[..150_000], Cancel);

        Assert.Equal(folder, await FetchAsync(folders, model));

        Assert.Equal("bytes=150000-", _hub!.Seen.Last().Range);
        Assert.Equal(weights, await File.ReadAllBytesAsync(Path.Combine(folder, "model.safetensors"), Cancel));
        Assert.False(Directory.Exists(growing));
    }

    [Fact]
    public async Task A_repository_that_is_not_what_it_was_is_the_users_matter()
    {
        var (folders, model) = await StartAsync();
        _hub!.Files["model.safetensors"] = new byte[200_000];
        var e = await Assert.ThrowsAsync<TrainingException>(() => FetchAsync(folders, model));
        Assert.Equal((FailureCode.InvalidData, "model"), (e.Code, e.Param));
        Assert.Contains("is not what the hub declares", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_hub_that_is_away_is_the_platforms_matter()
    {
        var (folders, model) = await StartAsync();
        _hub!.Bend = context => Task.FromResult(HubServer.Status(context, 503));
        var e = await Assert.ThrowsAsync<TrainingException>(() => FetchAsync(folders, model));
        Assert.Equal(FailureCode.Storage, e.Code);
    }

    [Fact]
    public async Task A_download_that_nobody_came_back_to_is_dropped()
    {
        var (folders, model) = await StartAsync();
        var hub = Path.Combine(_folder, "worker", "hub");
        foreach (var (name, age) in new[] { ("old", 8), ("young", 6) })
        {
            var part = Path.Combine(Directory.CreateDirectory(Path.Combine(hub, name)).FullName, "model.safetensors.part");
            await File.WriteAllBytesAsync(part, [1], Cancel);
            File.SetLastWriteTimeUtc(part, TimeProvider.System.GetUtcNow().UtcDateTime.AddDays(-age));
            Directory.SetLastWriteTimeUtc(Path.Combine(hub, name), TimeProvider.System.GetUtcNow().UtcDateTime.AddDays(-age));
        }

        await FetchAsync(folders, model);

        Assert.Equal(["young"], Directory.GetDirectories(hub).Select(Path.GetFileName));
    }

    public async ValueTask DisposeAsync()
    {
        _http?.Dispose();
        if (_hub is not null)
        {
            await _hub.DisposeAsync();
        }

        Directory.Delete(_folder, recursive: true);
    }

    private Task<string> FetchAsync(HubFolders folders, BaseModel model) => folders.FolderAsync(model, _files, _reports, Cancel);

    private async Task<(HubFolders Folders, BaseModel Model)> StartAsync()
    {
        _hub = await HubServer.StartAsync();
        var weights = Enumerable.Range(0, 200_000).Select(i => (byte)(i * 5 >> 2)).ToArray();
        _hub.Files["model.safetensors"] = weights;
        _http = new HubHttp(Hub(), HubNetwork.Default);
        using var config = new MemoryStream("{}"u8.ToArray());
        var stored = await new FolderArtifactStore(Path.Combine(_folder, "artifacts")).PutAsync("models/x/config.json", config, "application/json", Cancel);
        _files.Add(new ModelFileEntry("config.json", stored.Bytes, stored.Sha256));
        _files.Add(new ModelFileEntry("model.safetensors", weights.Length, HubServer.Sha256(weights), Remote: true));
        var model = new BaseModel
        {
            Id = Guid.CreateVersion7(),
            ProjectId = Project.BuiltIn,
            Name = "tiny",
            Source = ModelSource.Hub,
            Location = "models/x",
            ConfigJson = "{}",
            FilesJson = JsonSerializer.Serialize(_files),
            HubId = HubServer.Model,
            HubRevision = "main",
            HubCommit = HubServer.Commit,
            Bytes = weights.Length + 2,
            CreatedAt = TimeProvider.System.GetUtcNow(),
        };
        return (Folders(), model);
    }

    private IOptions<HubOptions> Hub() => Options.Create(new HubOptions { Endpoint = _hub!.Url, RetrySeconds = 0.01, Attempts = 2 });

    /// <summary>As another worker on the same folder has them.</summary>
    private HubFolders Folders()
    {
        var client = new HubClient(_http!, Hub(), TimeProvider.System);
        var paths = new WorkerPaths(
            Options.Create(new WorkerOptions { Executable = typeof(HubFolders).Assembly.Location }), Options.Create(new ServiceOptions { DataFolder = _folder }));
        var cache = new ArtifactCache(new FolderArtifactStore(Path.Combine(_folder, "artifacts")), paths, TimeProvider.System);
        return new HubFolders(
            cache, new HubDownload(_http!, client, TimeProvider.System, NullLogger<HubDownload>.Instance), paths, TimeProvider.System);
    }
}
