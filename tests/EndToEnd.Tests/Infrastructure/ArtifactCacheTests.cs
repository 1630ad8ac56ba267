using System.Globalization;
using Microsoft.Extensions.Options;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Worker;
using TrainingService.Worker.Supervision;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>What a job tells of itself while its stored inputs arrive.</summary>
public sealed class ArtifactCacheTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("training-cache-").FullName;
    private readonly JumpingClock _clock = new();

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_long_download_is_progress_and_says_how_far_it_is()
    {
        var store = new UnreliableStore(_folder);
        var files = await StoreAsync(store, 3);
        var reports = new ReportBuffer(_clock.GetUtcNow);
        var batches = new List<ProgressBatch?>();
        store.Reading = _ =>
        {
            batches.Add(reports.Take());
            _clock.Jump(TimeSpan.FromSeconds(4));
            return 0;
        };

        var folder = await CacheOn(store).FolderAsync("train.jsonl", files, reports, Cancel);

        batches.Add(reports.Take());
        Assert.Null(batches[0]);
        Assert.All(batches[1..], Assert.NotNull);   // each file has brought a sign of life, said or not
        Assert.Equal(
            [
                "Fetched 1.1 of 3.0 MB of train.jsonl from the artifact store.",
                "Fetched 3.0 of 3.0 MB of train.jsonl from the artifact store.",
            ],
            batches.SelectMany(batch => batch?.Events ?? []).Select(line => line.Message).Distinct());
        Assert.Equal(["0", "1", "2"], Directory.GetFiles(folder).Select(Path.GetFileName).Order());
        Assert.Equal(1_000_000, new FileInfo(Path.Combine(folder, "2")).Length);
    }

    [Fact]
    public async Task A_short_download_is_progress_and_not_worth_a_line()
    {
        var store = new UnreliableStore(_folder);
        var files = await StoreAsync(store, 2);
        var reports = new ReportBuffer(_clock.GetUtcNow);

        await CacheOn(store).FolderAsync("train.jsonl", files, reports, Cancel);

        Assert.Empty(reports.Take()!.Events);
    }

    [Fact]
    public async Task A_file_that_is_not_what_was_stored_is_refused_and_leaves_nothing()
    {
        var store = new UnreliableStore(_folder);
        var files = await StoreAsync(store, 1);
        files[0] = files[0] with { Sha256 = new string('0', 64) };

        await Assert.ThrowsAsync<DamagedFileException>(
            () => CacheOn(store).FolderAsync("train.jsonl", files, new ReportBuffer(_clock.GetUtcNow), Cancel));

        Assert.Empty(Directory.GetFileSystemEntries(Path.Combine(_folder, "worker", "cache")));
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static async Task<List<CachedFile>> StoreAsync(UnreliableStore store, int count)
    {
        var files = new List<CachedFile>();
        for (var i = 0; i < count; i++)
        {
            using var content = new MemoryStream(Enumerable.Repeat((byte)i, 1_000_000).ToArray());
            var stored = await store.PutAsync($"files/{i}", content, "text/plain", Cancel);
            files.Add(new CachedFile(i.ToString(CultureInfo.InvariantCulture), stored.Key, stored.Sha256, stored.Bytes));
        }

        return files;
    }

    private ArtifactCache CacheOn(UnreliableStore store) => new(
        store,
        new WorkerPaths(
            Options.Create(new WorkerOptions { Executable = typeof(ArtifactCache).Assembly.Location }),
            Options.Create(new ServiceOptions { DataFolder = _folder })),
        _clock);

    /// <summary>A clock that stands still until it jumps.</summary>
    private sealed class JumpingClock : TimeProvider
    {
        private TimeSpan _time;

        public override DateTimeOffset GetUtcNow() => DateTimeOffset.UnixEpoch + _time;

        public override long GetTimestamp() => (long)(_time.TotalSeconds * TimestampFrequency);

        public void Jump(TimeSpan time) => _time += time;
    }
}
