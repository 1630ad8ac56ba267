using System.Text;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Models;
using TrainingService.Domain.Projects;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>One pass removes what nothing refers to, and nothing else.</summary>
public abstract class StoreSweepTests : IAsyncLifetime
{
    private static readonly string InProject = $"projects/{Project.BuiltIn:N}";

    private readonly LaterClock _clock = new();
    private TestService? _service;

    protected abstract ServiceProfile Profile { get; }

    protected abstract IArtifactStore Store { get; }

    protected static CancellationToken Cancel => TestContext.Current.CancellationToken;

    private TestService Service => _service!;

    private StoreSweep Sweep => new(Service.Services.GetRequiredService<IDbContextFactory<AppDbContext>>(), Store, _clock);

    public async ValueTask InitializeAsync() => _service = await TestService.CreateAsync(Profile);

    public virtual async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        if (_service is not null)
        {
            await _service.DisposeAsync();
        }
    }

    [Fact]
    public async Task Only_what_no_row_refers_to_goes()
    {
        var wanted = new List<string>();
        var orphans = new List<string>();

        wanted.Add(await FileAsync(expires: null));
        wanted.Add(await FileAsync(expires: TimeSpan.FromDays(30)));
        orphans.Add(await FileAsync(expires: TimeSpan.FromHours(1)));
        orphans.Add(await PutAsync($"{InProject}/files/{Guid.NewGuid():N}"));
        wanted.Add(await PartAsync(lives: TimeSpan.FromDays(30)));
        orphans.Add(await PartAsync(lives: TimeSpan.FromHours(1)));
        orphans.Add(await PutAsync($"{InProject}/uploads/{Guid.NewGuid():N}/{Guid.NewGuid():N}"));
        wanted.Add(await ModelAsync());
        orphans.Add(await PutAsync($"{InProject}/models/{Guid.NewGuid():N}/config.json"));
        orphans.Add(await PutAsync("health/host-1"));
        wanted.Add(await PutAsync("elsewhere/not-ours"));
        wanted.Add(await PutAsync($"{InProject}/somewhere/else"));

        var (job, running) = (await Service.SubmitAsync(), await Service.SubmitAsync());
        await using (var db = await Service.OpenAsync())
        {
            await db.Jobs.Where(j => j.Id == job).ExecuteUpdateAsync(
                row => row.SetProperty(j => j.Status, JobStatus.Failed).SetProperty(j => j.Attempt, 2), Cancel);
            await db.Jobs.Where(j => j.Id == running).ExecuteUpdateAsync(
                row => row.SetProperty(j => j.Status, JobStatus.Running).SetProperty(j => j.Attempt, 2), Cancel);
        }

        var attempts = $"{InProject}/jobs/{job:N}/attempt-";
        wanted.Add(await ArtifactAsync(job, $"{attempts}2/logs/train.log"));
        wanted.Add(await CheckpointAsync(job, $"{attempts}1/checkpoints/step-000004/"));
        orphans.Add(await PutAsync($"{attempts}1/checkpoints/step-000008/model.safetensors"));
        orphans.Add(await PutAsync($"{attempts}1/adapter/half.safetensors"));
        orphans.Add(await PutAsync($"{attempts}2/adapter/half.safetensors"));
        wanted.Add(await PutAsync($"{InProject}/jobs/{running:N}/attempt-2/checkpoints/step-000004/now"));
        orphans.Add(await PutAsync($"{InProject}/jobs/{running:N}/attempt-1/checkpoints/step-000004/then"));
        orphans.Add(await PutAsync($"{InProject}/jobs/{Guid.NewGuid():N}/attempt-1/log"));
        await InterruptAsync();

        Assert.Equal(new SweptStore(), await Sweep.PassAsync(TimeSpan.FromHours(1), Cancel));
        Assert.Equal(wanted.Concat(orphans).Order(), await KeysAsync());

        _clock.Now += TimeSpan.FromHours(5);
        var swept = await Sweep.PassAsync(TimeSpan.FromHours(1), Cancel);

        Assert.Equal(wanted.Order(), await KeysAsync());
        Assert.Equal((1, 1, 1), (swept.Unfinished, swept.ExpiredFiles, swept.ExpiredUploads));
        Assert.Equal(orphans.Count - 2, swept.Objects);   // the expired file and the part went with their rows
        await using (var after = await Service.OpenAsync())
        {
            Assert.Equal(2, await after.Files.CountAsync(Cancel));
            Assert.Equal(1, await after.UploadParts.CountAsync(Cancel));
            Assert.Equal(UploadStatus.Expired, (await after.Uploads.SingleAsync(upload => upload.Status != UploadStatus.Pending, Cancel)).Status);
        }

        Assert.Equal(new SweptStore(), await Sweep.PassAsync(TimeSpan.FromHours(1), Cancel));
    }

    [Fact]
    public async Task One_process_cleans_at_a_time()
    {
        await using var first = await Service.OpenAsync();
        await using var second = await Service.OpenAsync();
        Assert.NotNull(await first.TryLockStoreAsync(Cancel));
        Assert.Equal(Profile == ServiceProfile.Embedded, await second.TryLockStoreAsync(Cancel) is not null);

        await first.DisposeAsync();

        await using var third = await Service.OpenAsync();
        Assert.NotNull(await third.TryLockStoreAsync(Cancel));
    }

    /// <summary>Leaves a write unfinished, as a crash would.</summary>
    protected abstract Task InterruptAsync();

    protected async Task<string> PutAsync(string key)
    {
        using var content = new MemoryStream(Encoding.UTF8.GetBytes(key));
        await Store.PutAsync(key, content, "text/plain", Cancel);
        return key;
    }

    private async Task<string> FileAsync(TimeSpan? expires)
    {
        var id = Guid.NewGuid();
        var key = await PutAsync($"{InProject}/files/{id:N}");
        await AddAsync(new DataFile
        {
            Id = id,
            ProjectId = Project.BuiltIn,
            FileName = "rows.jsonl",
            Purpose = "fine-tune",
            Bytes = 1,
            Sha256 = "",
            StorageKey = key,
            CreatedAt = _clock.Now,
            ExpiresAt = _clock.Now + expires,
        });
        return key;
    }

    private async Task<string> PartAsync(TimeSpan lives)
    {
        var (upload, part) = (Guid.NewGuid(), Guid.NewGuid());
        var key = await PutAsync($"{InProject}/uploads/{upload:N}/{part:N}");
        await AddAsync(new Upload
        {
            Id = upload,
            ProjectId = Project.BuiltIn,
            FileName = "rows.jsonl",
            Purpose = "fine-tune",
            Bytes = 1,
            Status = UploadStatus.Pending,
            CreatedAt = _clock.Now,
            ExpiresAt = _clock.Now + lives,
        });
        await AddAsync(new UploadPart { Id = part, UploadId = upload, Bytes = 1, Sha256 = "", StorageKey = key, CreatedAt = _clock.Now });
        return key;
    }

    private async Task<string> ModelAsync()
    {
        var id = Guid.NewGuid();
        await AddAsync(new BaseModel
        {
            Id = id,
            ProjectId = Project.BuiltIn,
            Name = "tiny",
            Source = ModelSource.Stored,
            Location = $"{InProject}/models/{id:N}",
            ConfigJson = "{}",
            FilesJson = "[]",
            Bytes = 1,
            CreatedAt = _clock.Now,
        });
        return await PutAsync($"{InProject}/models/{id:N}/config.json");
    }

    private async Task<string> ArtifactAsync(Guid job, string key)
    {
        await AddAsync(new Artifact
        {
            Id = Guid.NewGuid(),
            JobId = job,
            Attempt = 2,
            Path = "logs/train.log",
            Bytes = 1,
            Sha256 = "",
            ContentType = "text/plain",
            StorageKey = key,
        });
        return await PutAsync(key);
    }

    private async Task<string> CheckpointAsync(Guid job, string prefix)
    {
        await AddAsync(new JobCheckpoint
        {
            Id = Guid.NewGuid(),
            JobId = job,
            Attempt = 1,
            Step = 4,
            Best = false,
            MetricsJson = "{}",
            StoragePrefix = prefix,
            CreatedAt = _clock.Now,
        });
        return await PutAsync(prefix + "manifest.json");
    }

    private async Task AddAsync(object row)
    {
        await using var db = await Service.OpenAsync();
        db.Add(row);
        await db.SaveChangesAsync(Cancel);
    }

    private async Task<List<string>> KeysAsync()
    {
        var keys = new List<string>();
        await foreach (var item in Store.ListAsync("", Cancel))
        {
            keys.Add(item.Key);
        }

        return [.. keys.Order()];
    }

    /// <summary>Goes with the world's clock, which the store has too, from where a test puts it.</summary>
    private sealed class LaterClock : TimeProvider
    {
        public DateTimeOffset Now { get; set; } = System.GetUtcNow();

        public override DateTimeOffset GetUtcNow() => Now;
    }
}

public sealed class StoreSweepOnEmbeddedTests : StoreSweepTests
{
    private readonly string _folder = Directory.CreateTempSubdirectory("training-sweep-").FullName;

    protected override ServiceProfile Profile => ServiceProfile.Embedded;

    protected override IArtifactStore Store => new FolderArtifactStore(_folder);

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    protected override Task InterruptAsync() => File.WriteAllTextAsync(Path.Combine(_folder, "incoming", Guid.NewGuid().ToString("N")), "half", Cancel);
}

public sealed class StoreSweepOnProductionTests : StoreSweepTests
{
    private S3ArtifactStore? _store;
    private string _bucket = "";

    protected override ServiceProfile Profile => ServiceProfile.Production;

    protected override IArtifactStore Store => _store ??= TestStore.Open(_bucket = TestStore.NewBucket());

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        _store?.Dispose();
    }

    /// <summary>A content that fails as a store does leaves its parts for the next put.</summary>
    protected override async Task InterruptAsync() =>
        await Assert.ThrowsAsync<ArtifactStoreException>(() => Store.PutAsync("interrupted/object", new Interrupted(), "text/plain", Cancel));

    private sealed class Interrupted() : SeededStream(1, 40 << 20)
    {
        public override int Read(Span<byte> buffer) =>
            Position >= 20 << 20 ? throw new ArtifactStoreException("away") : base.Read(buffer);
    }
}
