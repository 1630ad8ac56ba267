using System.Security.Cryptography;
using System.Text;
using TrainingService.Domain.Artifacts;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>What every artifact store promises.</summary>
public abstract class ArtifactStoreTests
{
    protected static CancellationToken Cancel => TestContext.Current.CancellationToken;

    protected abstract IArtifactStore Store { get; }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(5 << 20)]
    [InlineData((20 << 20) + 17)]
    public async Task What_is_put_comes_back_with_its_length_and_hash(int length)
    {
        var bytes = Bytes(length);
        using var content = new MemoryStream(bytes);

        var stored = await Store.PutAsync($"round/{length}.bin", content, "application/octet-stream", Cancel);

        Assert.Equal(new StoredObject($"round/{length}.bin", length, Convert.ToHexStringLower(SHA256.HashData(bytes))), stored);
        Assert.Equal(bytes, await ReadAsync(stored.Key));
    }

    [Fact]
    public async Task A_stream_that_cannot_tell_its_length_is_stored_whole()
    {
        var bytes = Bytes(300_000);
        await using var content = new UnknownLength(bytes);

        var stored = await Store.PutAsync("unknown/length", content, "text/plain", Cancel);

        Assert.Equal((bytes.Length, Convert.ToHexStringLower(SHA256.HashData(bytes))), (stored.Bytes, stored.Sha256));
        Assert.Equal(bytes, await ReadAsync("unknown/length"));
    }

    [Fact]
    public async Task A_range_is_both_ends_included()
    {
        await PutAsync("range/digits", "0123456789");

        Assert.Equal("234", Encoding.UTF8.GetString(await ReadAsync("range/digits", (2, 4))));
        Assert.Equal("9", Encoding.UTF8.GetString(await ReadAsync("range/digits", (9, 9))));
    }

    [Fact]
    public async Task A_second_put_replaces_the_first()
    {
        await PutAsync("again/a", "old and long");
        await PutAsync("again/a", "new");

        Assert.Equal("new", Encoding.UTF8.GetString(await ReadAsync("again/a")));
    }

    [Fact]
    public async Task Listing_names_what_is_below_a_prefix_and_deleting_removes_it()
    {
        await PutAsync("list/a (1).txt", "a");
        await PutAsync("list/deep/b", "bb");
        await PutAsync("listed-not/c", "c");

        Assert.Equal([("list/a (1).txt", 1L), ("list/deep/b", 2L)], await ListAsync("list/"));
        await Store.DeleteAsync("list/deep/b", Cancel);
        await Store.DeleteAsync("list/deep/b", Cancel);
        Assert.Null(await Store.OpenReadAsync("list/deep/b", null, Cancel));
        Assert.Equal([("list/a (1).txt", 1L)], await ListAsync("list/"));
    }

    [Theory]
    [InlineData("../outside")]
    [InlineData("a/../../outside")]
    [InlineData("/etc/passwd")]
    [InlineData("a//b")]
    [InlineData("a\\b")]
    [InlineData("")]
    public async Task A_key_that_could_leave_its_place_is_refused(string key)
    {
        await Assert.ThrowsAsync<ArgumentException>(() => PutAsync(key, "x"));
        await Assert.ThrowsAsync<ArgumentException>(() => Store.OpenReadAsync(key, null, Cancel));
        await Assert.ThrowsAsync<ArgumentException>(() => Store.DeleteAsync(key, Cancel));
    }

    protected async Task PutAsync(string key, string text)
    {
        using var content = new MemoryStream(Encoding.UTF8.GetBytes(text));
        await Store.PutAsync(key, content, "text/plain", Cancel);
    }

    private async Task<byte[]> ReadAsync(string key, (long, long)? range = null)
    {
        await using var content = await Store.OpenReadAsync(key, range, Cancel);
        Assert.NotNull(content);
        using var copy = new MemoryStream();
        await content.CopyToAsync(copy, Cancel);
        return copy.ToArray();
    }

    private async Task<List<(string, long)>> ListAsync(string prefix)
    {
        var found = new List<(string, long)>();
        await foreach (var item in Store.ListAsync(prefix, Cancel))
        {
            found.Add((item.Key, item.Bytes));
        }

        return [.. found.OrderBy(item => item.Item1, StringComparer.Ordinal)];
    }

    private static byte[] Bytes(int length)
    {
        var bytes = new byte[length];
        for (var i = 0; i < length; i++)
        {
            bytes[i] = (byte)(i * 31 + (i >> 11));
        }

        return bytes;
    }

    /// <summary>Bytes as a request's body brings them: in small pieces, without a length.</summary>
    private sealed class UnknownLength(byte[] bytes) : MemoryStream(bytes)
    {
        public override bool CanSeek => false;

        public override long Length => throw new NotSupportedException();

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
            base.ReadAsync(buffer[..Math.Min(buffer.Length, 1000)], cancellationToken);
    }
}

public sealed class FolderArtifactStoreTests : ArtifactStoreTests, IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("training-store-").FullName;

    protected override IArtifactStore Store => new FolderArtifactStore(_folder);

    [Fact]
    public async Task A_put_that_breaks_off_leaves_nothing_behind()
    {
        await using var content = new BrokenStream();

        await Assert.ThrowsAsync<IOException>(() => Store.PutAsync("broken/a", content, "text/plain", Cancel));

        Assert.Null(await Store.OpenReadAsync("broken/a", null, Cancel));
        Assert.Empty(Directory.EnumerateFiles(_folder, "*", SearchOption.AllDirectories));
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private sealed class BrokenStream : MemoryStream
    {
        public override bool CanSeek => false;

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
            throw new IOException("The client hung up.");
    }
}

public sealed class S3ArtifactStoreTests : ArtifactStoreTests, IDisposable
{
    private S3ArtifactStore? _store;

    protected override IArtifactStore Store => _store ??= TestStore.Open(TestStore.NewBucket());

    [Fact]
    public async Task A_presigned_url_gives_the_object_to_anybody()
    {
        await PutAsync("presigned/a b.txt", "hello");

        var url = await Store.PresignAsync("presigned/a b.txt", "héllo.txt", TimeSpan.FromMinutes(5), Cancel);

        using var client = new HttpClient();
        using var response = await client.GetAsync(url, Cancel);
        Assert.Equal("hello", await response.Content.ReadAsStringAsync(Cancel));
        Assert.Equal("héllo.txt", response.Content.Headers.ContentDisposition?.FileNameStar);
    }

    public void Dispose() => _store?.Dispose();
}
