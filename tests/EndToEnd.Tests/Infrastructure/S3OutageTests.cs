using System.Diagnostics;
using System.Security.Cryptography;
using TrainingService.Domain.Artifacts;
using TrainingService.EndToEnd.Tests.Chaos;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>What the S3 store does while the way to it is broken.</summary>
public sealed class S3OutageTests : IAsyncDisposable
{
    private const int MiB = 1 << 20;

    private readonly string _bucket = TestStore.NewBucket();
    private readonly TcpProxy _proxy = TcpProxy.Start(TestStore.Endpoint);
    private readonly S3ArtifactStore _direct;
    private readonly S3ArtifactStore _store;

    public S3OutageTests()
    {
        _direct = TestStore.Open(_bucket);
        _store = TestStore.Open(_bucket, _proxy.Endpoint, idleSeconds: 1);
    }

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task An_upload_that_an_outage_ended_is_taken_up_by_the_next_one()
    {
        _proxy.CutAfter(40 * MiB, ProxyDirection.ToTarget);
        _proxy.OnCut = _proxy.Refuse;
        using var first = TestStore.Open(_bucket, _proxy.Endpoint);   // patient, so that no slow part is sent twice before the cut
        var failure = await Assert.ThrowsAsync<ArtifactStoreException>(() => PutAsync(first, "taken/up", new SeededStream(3, 80 * MiB)));
        Assert.Contains("taken/up", failure.Message, StringComparison.Ordinal);
        Assert.Null(await _direct.OpenReadAsync("taken/up", null, Cancel));

        _proxy.Pass();
        var before = _proxy.BytesToTarget;
        using var next = TestStore.Open(_bucket, _proxy.Endpoint);   // as another process would
        var stored = await PutAsync(next, "taken/up", new SeededStream(3, 80 * MiB));

        Assert.InRange(_proxy.BytesToTarget - before, 48 * MiB, 50 * MiB);   // two parts of five were there
        Assert.Equal(stored.Sha256, await HashAsync(_direct, "taken/up"));
        Assert.Equal(0, await _direct.RemoveUnfinishedAsync(DateTimeOffset.MaxValue, Cancel));
        await _direct.DeleteAsync("taken/up", Cancel);
    }

    [Fact]
    public async Task Another_content_under_the_key_of_an_unfinished_upload_is_stored_whole()
    {
        _proxy.CutAfter(40 * MiB, ProxyDirection.ToTarget);
        _proxy.OnCut = _proxy.Refuse;
        await Assert.ThrowsAsync<ArtifactStoreException>(() => PutAsync(_store, "other/content", new SeededStream(3, 80 * MiB)));

        var stored = await PutAsync(_direct, "other/content", new SeededStream(4, 36 * MiB));

        Assert.Equal(36 * MiB, stored.Bytes);
        Assert.Equal(stored.Sha256, await HashAsync(_direct, "other/content"));
        await _direct.DeleteAsync("other/content", Cancel);
    }

    [Fact]
    public async Task A_content_that_breaks_off_leaves_no_object_and_no_parts()
    {
        var content = new BreakingAt(40 * MiB, 80 * MiB);

        await Assert.ThrowsAsync<IOException>(() => PutAsync(_direct, "broken/off", content));

        Assert.Null(await _direct.OpenReadAsync("broken/off", null, Cancel));
        Assert.Equal(0, await _direct.RemoveUnfinishedAsync(DateTimeOffset.MaxValue, Cancel));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(36)]
    public async Task A_fence_that_closes_keeps_the_object_from_appearing(int mebibytes)
    {
        var content = new Fenced(mebibytes * MiB, checks: 3);

        var failure = await Assert.ThrowsAsync<InvalidOperationException>(() => PutAsync(_direct, "fenced/object", content));

        Assert.Equal("closed", failure.Message);
        Assert.Null(await _direct.OpenReadAsync("fenced/object", null, Cancel));
    }

    [Fact]
    public async Task A_download_that_stalls_or_breaks_goes_on_where_it_was()
    {
        var stored = await PutAsync(_direct, "stalls/object", new SeededStream(5, 12 * MiB));
        _proxy.CutAfter(3 * MiB, ProxyDirection.FromTarget);
        await using var content = await _store.OpenReadAsync("stalls/object", null, Cancel);
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = new byte[6 * MiB];
        await content!.ReadExactlyAsync(buffer, Cancel);
        hash.AppendData(buffer);

        _proxy.Blackhole();
        var rest = content.ReadExactlyAsync(buffer, Cancel).AsTask();
        await Task.Delay(TimeSpan.FromSeconds(1.5), Cancel);
        _proxy.Pass();
        await rest;
        hash.AppendData(buffer);

        Assert.Equal(stored.Sha256, Convert.ToHexStringLower(hash.GetHashAndReset()));
        Assert.Equal(0, await content.ReadAsync(buffer, Cancel));
        Assert.Equal(1, _proxy.Cuts);
    }

    [Fact]
    public async Task A_range_that_breaks_goes_on_within_the_range()
    {
        await PutAsync(_direct, "range/object", new SeededStream(5, 12 * MiB));
        _proxy.CutAfter(MiB, ProxyDirection.FromTarget);

        await using var content = await _store.OpenReadAsync("range/object", (4 * MiB, (8 * MiB) - 1), Cancel);
        using var got = new MemoryStream();
        await content!.CopyToAsync(got, Cancel);

        var expected = new byte[4 * MiB];
        await using var whole = new SeededStream(5, 12 * MiB) { Position = 4 * MiB };
        await whole.ReadExactlyAsync(expected, Cancel);
        Assert.True(expected.AsSpan().SequenceEqual(got.ToArray()));
    }

    [Fact]
    public async Task An_object_that_is_replaced_while_it_is_read_is_refused()
    {
        await PutAsync(_direct, "replaced/object", new SeededStream(5, 12 * MiB));
        _proxy.CutAfter(3 * MiB, ProxyDirection.FromTarget);
        await using var content = await _store.OpenReadAsync("replaced/object", null, Cancel);
        var buffer = new byte[64 * 1024];
        await content!.ReadExactlyAsync(buffer, Cancel);
        await PutAsync(_direct, "replaced/object", new SeededStream(6, 12 * MiB));

        var failure = await Assert.ThrowsAsync<ArtifactStoreException>(() => content.CopyToAsync(Stream.Null, Cancel));

        Assert.Contains("replaced", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_short_outage_is_not_noticed()
    {
        await PutAsync(_store, "short/before", new SeededStream(1, 10));
        _proxy.Refuse();
        var put = PutAsync(_store, "short/object", new SeededStream(1, 100));
        await Task.Delay(TimeSpan.FromSeconds(1), Cancel);
        Assert.False(put.IsCompleted);

        _proxy.Pass();

        Assert.Equal(100, (await put).Bytes);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_long_outage_is_told_and_never_waited_for_without_end(bool blackhole)
    {
        await PutAsync(_store, "long/object", new SeededStream(1, 100));
        if (blackhole)
        {
            _proxy.Blackhole();
        }
        else
        {
            _proxy.Refuse();
        }

        var time = Stopwatch.StartNew();
        await Task.WhenAll(
            Assert.ThrowsAsync<ArtifactStoreException>(() => _store.OpenReadAsync("long/object", null, Cancel)),
            Assert.ThrowsAsync<ArtifactStoreException>(() => PutAsync(_store, "long/other", new SeededStream(1, 100))),
            Assert.ThrowsAsync<ArtifactStoreException>(() => _store.DeleteAsync("long/object", Cancel)));
        Assert.InRange(time.Elapsed, TimeSpan.FromSeconds(2), TimeSpan.FromSeconds(60));
    }

    [Fact]
    public async Task Reading_back_proves_the_hash_of_what_is_stored()
    {
        using var careful = TestStore.Open(_bucket, verify: true);

        var stored = await PutAsync(careful, "careful/object", new SeededStream(9, 17 * MiB));

        Assert.Equal(17 * MiB, stored.Bytes);
        await using var wrong = await _direct.OpenVerifiedAsync("careful/object", stored.Bytes, new string('0', 64), Cancel);
        await Assert.ThrowsAsync<ArtifactStoreException>(() => wrong!.CopyToAsync(Stream.Null, Cancel));
        await using var right = await _direct.OpenVerifiedAsync("careful/object", stored.Bytes, stored.Sha256, Cancel);
        await right!.CopyToAsync(Stream.Null, Cancel);
    }

    public async ValueTask DisposeAsync()
    {
        _store.Dispose();
        await foreach (var item in _direct.ListAsync("", CancellationToken.None))
        {
            await _direct.DeleteAsync(item.Key, CancellationToken.None);
        }

        _direct.Dispose();
        await _proxy.DisposeAsync();
    }

    private static async Task<StoredObject> PutAsync(S3ArtifactStore store, string key, Stream content)
    {
        await using (content)
        {
            return await store.PutAsync(key, content, "application/octet-stream", Cancel);
        }
    }

    private static async Task<string> HashAsync(S3ArtifactStore store, string key)
    {
        await using var content = await store.OpenReadAsync(key, null, Cancel);
        return Convert.ToHexStringLower(await SHA256.HashDataAsync(content!, Cancel));
    }

    private sealed class BreakingAt(long place, long length) : SeededStream(3, length)
    {
        public override int Read(Span<byte> buffer) =>
            Position >= place ? throw new IOException("The disk is gone.") : base.Read(buffer);
    }

    private sealed class Fenced(long length, int checks) : SeededStream(3, length), IWriteFence
    {
        private int _left = checks;

        public ValueTask HoldAsync(CancellationToken cancellationToken) =>
            --_left < 0 ? throw new InvalidOperationException("closed") : ValueTask.CompletedTask;
    }
}
