using System.Diagnostics;
using System.Security.Cryptography;
using TrainingService.Domain.Artifacts;
using TrainingService.EndToEnd.Tests.Chaos;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>Tests that measure the whole process, and so have it to themselves.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class Alone
{
    public const string Name = "alone";
}

/// <summary>One gibibyte to S3 and back over connections that break.</summary>
[Collection(Alone.Name)]
public sealed class LargeArtifactTests
{
    private const long Size = 1L << 30;
    private const long Slack = 48L << 20;   // the part or buffer that was under way, and headers
    private const long MostGrowth = 200_000_000;

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_gibibyte_goes_both_ways_over_cut_connections_without_starting_over_and_without_filling_memory()
    {
        await using var proxy = TcpProxy.Start(TestStore.Endpoint);
        using var store = TestStore.Open(TestStore.NewBucket(), proxy.Endpoint);
        await using (var small = new SeededStream(1, 1 << 20))
        {
            await store.PutAsync("large/warm-up", small, "application/octet-stream", Cancel);
        }

        using var memory = new MemoryWatch();
        try
        {
            var sent = proxy.BytesToTarget;
            proxy.CutAfter(Size * 2 / 5, ProxyDirection.ToTarget);
            var upload = Stopwatch.StartNew();
            await using var content = new SeededStream(7, Size);
            var stored = await store.PutAsync("large/object", content, "application/octet-stream", Cancel);
            upload.Stop();
            sent = proxy.BytesToTarget - sent;

            var received = proxy.BytesFromTarget;
            proxy.CutAfter(Size * 3 / 5, ProxyDirection.FromTarget);
            var download = Stopwatch.StartNew();
            var hash = await HashAsync(store, "large/object");
            download.Stop();
            received = proxy.BytesFromTarget - received;

            await using var again = new SeededStream(7, Size);
            var expected = Convert.ToHexStringLower(await SHA256.HashDataAsync(again, Cancel));
            TestContext.Current.TestOutputHelper?.WriteLine(
                $"up {Size / 1e6 / upload.Elapsed.TotalSeconds:F0} MB/s, {sent} bytes sent; down {Size / 1e6 / download.Elapsed.TotalSeconds:F0} MB/s, "
                + $"{received} bytes received; memory grew by {memory.Growth / 1e6:F0} MB");
            Assert.Equal((Size, expected), (stored.Bytes, stored.Sha256));
            Assert.Equal(expected, hash);
            Assert.Equal(2, proxy.Cuts);
            Assert.InRange(sent, Size, Size + Slack);
            Assert.InRange(received, Size, Size + Slack);
            Assert.InRange(memory.Growth, 0, MostGrowth);
        }
        finally
        {
            proxy.Pass();
            await store.DeleteAsync("large/object", CancellationToken.None);
        }
    }

    private static async Task<string> HashAsync(S3ArtifactStore store, string key)
    {
        await using var content = await store.OpenReadAsync(key, null, Cancel) ?? throw new ArtifactStoreException($"{key} is not there.");
        return Convert.ToHexStringLower(await SHA256.HashDataAsync(content, Cancel));
    }

    /// <summary>The most that the process's resident memory has grown since the beginning.</summary>
    private sealed class MemoryWatch : IDisposable
    {
        private readonly Timer _timer;
        private readonly long _before = Environment.WorkingSet;
        private long _peak;

        public MemoryWatch() => _timer = new Timer(_ => _peak = Math.Max(_peak, Environment.WorkingSet), null, 0, 20);

        public long Growth => Math.Max(0, Volatile.Read(ref _peak) - _before);

        public void Dispose() => _timer.Dispose();
    }
}
