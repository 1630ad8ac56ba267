using System.Net;
using System.Net.Http.Headers;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using Microsoft.Extensions.Options;
using Minio;
using Minio.DataModel.Args;
using Minio.Exceptions;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Objects in one bucket of an S3-compatible store.</summary>
public sealed class S3ArtifactStore : IArtifactStore, IDisposable
{
    private const string HashHeader = "x-amz-meta-sha256";
    private const string HashName = "sha256";

    private readonly S3Options _options;
    private readonly IMinioClient _client;
    private readonly IMinioClient _presigner;
    private readonly HttpClient _http = new() { Timeout = Timeout.InfiniteTimeSpan };
    private readonly SemaphoreSlim _bucketGate = new(1);
    private bool _bucketExists;

    public S3ArtifactStore(IOptions<S3Options> options)
    {
        _options = options.Value;
        _client = CreateClient(_options.Endpoint);
        _presigner = _options.PublicEndpoint is { } open ? CreateClient(open) : _client;
    }

    /// <remarks>
    /// The length must be known before the first byte is sent, or the client would buffer parts of half a gigabyte. A stream that
    /// cannot tell its length goes through a temporary file. The hash travels as metadata and is read back from the store.
    /// </remarks>
    public async Task<StoredObject> PutAsync(string key, Stream content, string contentType, CancellationToken cancellationToken)
    {
        StorageKey.Check(key);
        await using var spool = content.CanSeek ? null : await SpoolAsync(content, cancellationToken);
        var source = spool ?? content;
        var start = source.Position;
        var bytes = source.Length - start;
        var sha256 = Convert.ToHexStringLower(await SHA256.HashDataAsync(source, cancellationToken));
        source.Position = start;
        try
        {
            await EnsureBucketAsync(cancellationToken);
            await _client.PutObjectAsync(
                new PutObjectArgs().WithBucket(_options.Bucket).WithObject(key).WithContentType(contentType)
                    .WithStreamData(source).WithObjectSize(bytes)
                    .WithHeaders(new Dictionary<string, string> { [HashHeader] = sha256 }),
                cancellationToken);
            var stored = await _client.StatObjectAsync(
                new StatObjectArgs().WithBucket(_options.Bucket).WithObject(key), cancellationToken);
            var storedHash = stored.MetaData.FirstOrDefault(pair => pair.Key.Equals(HashName, StringComparison.OrdinalIgnoreCase)).Value;
            if (stored.Size != bytes || storedHash != sha256)
            {
                throw new ArtifactStoreException(
                    $"'{key}' was stored with {stored.Size} bytes and sha256 {storedHash}; {bytes} bytes with {sha256} were sent.");
            }
        }
        catch (Exception e) when (e is MinioException or HttpRequestException)
        {
            throw Unavailable("write", key, e);
        }

        return new StoredObject(key, bytes, sha256);
    }

    public async Task<Stream?> OpenReadAsync(string key, (long First, long Last)? range, CancellationToken cancellationToken)
    {
        StorageKey.Check(key);
        HttpResponseMessage? response = null;
        try
        {
            // The client hands bodies to a callback only; a URL signed by it gives the body as a stream to pull from.
            var address = await PresignAsync(_client, key, null, TimeSpan.FromHours(1));
            using var request = new HttpRequestMessage(HttpMethod.Get, address);
            if (range is { } wanted)
            {
                request.Headers.Range = new RangeHeaderValue(wanted.First, wanted.Last);
            }

            response = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken);
            if (response.StatusCode == HttpStatusCode.NotFound)
            {
                response.Dispose();
                return null;
            }

            response.EnsureSuccessStatusCode();
            var body = await response.Content.ReadAsStreamAsync(cancellationToken);
            return new LimitedStream(body, response.Content.Headers.ContentLength ?? long.MaxValue, response);
        }
        catch (Exception e) when (e is MinioException or HttpRequestException)
        {
            response?.Dispose();
            throw Unavailable("read", key, e);
        }
    }

    public async IAsyncEnumerable<StoredObject> ListAsync(
        string prefix, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await EnsureBucketAsync(cancellationToken);
        var items = _client.ListObjectsEnumAsync(
            new ListObjectsArgs().WithBucket(_options.Bucket).WithPrefix(prefix).WithRecursive(true), cancellationToken);
        await foreach (var item in items.WithCancellation(cancellationToken))
        {
            yield return new StoredObject(item.Key, (long)item.Size, "");
        }
    }

    public async Task DeleteAsync(string key, CancellationToken cancellationToken)
    {
        StorageKey.Check(key);
        try
        {
            await _client.RemoveObjectAsync(
                new RemoveObjectArgs().WithBucket(_options.Bucket).WithObject(key), cancellationToken);
        }
        catch (Exception e) when (e is ObjectNotFoundException or BucketNotFoundException)
        {
            // What shall not be there is not there.
        }
        catch (Exception e) when (e is MinioException or HttpRequestException)
        {
            throw Unavailable("delete", key, e);
        }
    }

    public async Task<Uri?> PresignAsync(string key, string downloadName, TimeSpan lifetime, CancellationToken cancellationToken) =>
        await PresignAsync(_presigner, StorageKey.Check(key), downloadName, lifetime);

    public void Dispose()
    {
        _client.Dispose();
        if (!ReferenceEquals(_presigner, _client))
        {
            _presigner.Dispose();
        }

        _http.Dispose();
        _bucketGate.Dispose();
    }

    private static ArtifactStoreException Unavailable(string verb, string key, Exception cause) =>
        new($"The artifact store could not {verb} '{key}': {cause.Message}", cause);

    private static async Task<FileStream> SpoolAsync(Stream content, CancellationToken cancellationToken)
    {
        var file = new FileStream(
            Path.Combine(Path.GetTempPath(), $"upload-{Guid.NewGuid():N}"),
            new FileStreamOptions
            {
                Mode = FileMode.CreateNew,
                Access = FileAccess.ReadWrite,
                Options = FileOptions.DeleteOnClose | FileOptions.Asynchronous,
                BufferSize = 1 << 16,
            });
        try
        {
            await content.CopyToAsync(file, 1 << 16, cancellationToken);
            file.Position = 0;
            return file;
        }
        catch
        {
            await file.DisposeAsync();
            throw;
        }
    }

    private IMinioClient CreateClient(string endpoint) => new MinioClient()
        .WithEndpoint(endpoint)
        .WithCredentials(_options.AccessKey, _options.SecretKey)
        .WithRegion(_options.Region)
        .WithSSL(_options.UseTls)
        .Build();

    private async Task<Uri> PresignAsync(IMinioClient client, string key, string? downloadName, TimeSpan lifetime)
    {
        var args = new PresignedGetObjectArgs().WithBucket(_options.Bucket).WithObject(key)
            .WithExpiry((int)Math.Clamp(lifetime.TotalSeconds, 1, TimeSpan.FromDays(7).TotalSeconds));
        if (downloadName is not null)
        {
            args = args.WithHeaders(new Dictionary<string, string>
            {
                ["response-content-disposition"] = $"attachment; filename*=UTF-8''{Uri.EscapeDataString(downloadName)}",
            });
        }

        return new Uri(await client.PresignedGetObjectAsync(args));
    }

    private async Task EnsureBucketAsync(CancellationToken cancellationToken)
    {
        await _bucketGate.WaitAsync(cancellationToken);
        try
        {
            if (!_bucketExists)
            {
                if (!await _client.BucketExistsAsync(new BucketExistsArgs().WithBucket(_options.Bucket), cancellationToken))
                {
                    await _client.MakeBucketAsync(
                        new MakeBucketArgs().WithBucket(_options.Bucket).WithLocation(_options.Region), cancellationToken);
                }

                _bucketExists = true;
            }
        }
        finally
        {
            _bucketGate.Release();
        }
    }
}
