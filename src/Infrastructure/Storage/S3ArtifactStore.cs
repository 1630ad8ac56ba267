using System.Buffers;
using System.Net;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using Amazon.S3;
using Amazon.S3.Model;
using Microsoft.Extensions.Options;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Objects in one bucket of an S3-compatible store.</summary>
/// <remarks>
/// What is proved when a put returns: every request's body was signed with its sha256, which the store compares with what arrived;
/// the MD5 that the store reports of each part equals that of the bytes sent; the length, and where the store forms it the chain of
/// the parts' MD5s, are those of the whole. Where the store encrypts with keys of its own it reports no MD5, and the signature and
/// the length remain. <see cref="S3Options.VerifyByReading"/> adds the sha256 of what comes back.
/// </remarks>
public sealed class S3ArtifactStore : IArtifactStore, IDisposable
{
    /// <summary>Least size of a part, and the largest object that goes in one request.</summary>
    internal const int PartBytes = 16 << 20;

    /// <summary>Parts that an object of known length is cut into at most; the protocol allows ten thousand.</summary>
    private const int WantedParts = 9000;

    private readonly S3Connection _s3;
    private readonly SemaphoreSlim _bucketGate = new(1);
    private bool _bucketExists;

    public S3ArtifactStore(IOptions<S3Options> options, TimeProvider? clock = null) =>
        _s3 = new S3Connection(options.Value, clock ?? TimeProvider.System);

    public async Task<StoredObject> PutAsync(string key, Stream content, string contentType, CancellationToken cancellationToken)
    {
        StorageKey.Check(key);
        var fence = content as IWriteFence;
        await EnsureBucketAsync(cancellationToken);

        // A file that grows meanwhile, such as a log, is stored as long as it is now.
        long? length = content.CanSeek ? content.Length - content.Position : null;
        var partBytes = (int)Math.Min(length is null ? PartBytes : PartBytesOf(length.Value), Array.MaxLength);
        var buffer = ArrayPool<byte>.Shared.Rent((int)Math.Min(partBytes, Math.Max(length ?? partBytes, 1)));
        using var sha256 = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        S3MultipartUpload? upload = null;
        long sent = 0;
        try
        {
            while (true)
            {
                var wanted = (int)Math.Min(partBytes, length - sent ?? long.MaxValue);
                var part = buffer.AsMemory(0, await content.ReadAtLeastAsync(buffer.AsMemory(0, wanted), wanted, throwOnEndOfStream: false, cancellationToken));
                sha256.AppendData(part.Span);
                sent += part.Length;
                var isLast = part.Length < partBytes || sent == length;
                if (isLast && upload is null)
                {
                    await PutWholeAsync(key, part, contentType, fence, cancellationToken);
                    break;
                }

                upload ??= await S3MultipartUpload.BeginAsync(_s3, key, contentType, fence, cancellationToken);
                if (part.Length > 0)
                {
                    await upload.AddAsync(part, cancellationToken);
                }

                if (isLast)
                {
                    await upload.CompleteAsync(cancellationToken);
                    break;
                }
            }
        }
        catch (Exception e) when (e is not ArtifactStoreException && upload is not null)
        {
            // The content failed or the caller gave up. An outage instead leaves the parts for the next put to go on with.
            await upload.TryAbortAsync();
            throw;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }

        var stored = new StoredObject(key, sent, Convert.ToHexStringLower(sha256.GetHashAndReset()));
        if (_s3.Options.VerifyByReading)
        {
            await VerifyAsync(stored, cancellationToken);
        }

        return stored;
    }

    public async Task<Stream?> OpenReadAsync(string key, (long First, long Last)? range, CancellationToken cancellationToken) =>
        await S3ReadStream.OpenAsync(_s3, StorageKey.Check(key), range, cancellationToken);

    public async IAsyncEnumerable<StoredObject> ListAsync(
        string prefix, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await EnsureBucketAsync(cancellationToken);
        var request = new ListObjectsV2Request { BucketName = _s3.Options.Bucket, Prefix = prefix };
        do
        {
            var page = await _s3.SendAsync("list", prefix, watch => _s3.Client.ListObjectsV2Async(request, watch.Token), cancellationToken);
            foreach (var item in page.S3Objects ?? [])
            {
                yield return new StoredObject(item.Key, item.Size ?? 0, "")
                {
                    StoredAt = item.LastModified is { } time ? new DateTimeOffset(time.ToUniversalTime()) : null,
                };
            }

            request.ContinuationToken = page.NextContinuationToken;
        }
        while (request.ContinuationToken is not null);
    }

    public async Task DeleteAsync(string key, CancellationToken cancellationToken)
    {
        StorageKey.Check(key);
        try
        {
            await _s3.SendAsync("delete", key, watch => _s3.Client.DeleteObjectAsync(_s3.Options.Bucket, key, watch.Token), cancellationToken);
        }
        catch (ArtifactStoreException e) when (S3Failures.HasStatus(e.InnerException, HttpStatusCode.NotFound))
        {
            // What shall not be there is not there.
        }
    }

    public async Task<int> RemoveUnfinishedAsync(DateTimeOffset before, CancellationToken cancellationToken)
    {
        var removed = 0;
        await foreach (var upload in S3MultipartUpload.ListAsync(_s3, "", cancellationToken))
        {
            if (upload.Initiated is { } time && new DateTimeOffset(time.ToUniversalTime()) < before)
            {
                await S3MultipartUpload.AbortAsync(_s3, upload.Key, upload.UploadId, cancellationToken);
                removed++;
            }
        }

        return removed;
    }

    public async Task<Uri?> PresignAsync(string key, string downloadName, TimeSpan lifetime, CancellationToken cancellationToken)
    {
        var seconds = Math.Clamp(lifetime.TotalSeconds, 1, TimeSpan.FromDays(7).TotalSeconds);
        var request = new GetPreSignedUrlRequest
        {
            BucketName = _s3.Options.Bucket,
            Key = StorageKey.Check(key),
            Verb = HttpVerb.GET,
            Protocol = _s3.PublicAddress.Scheme == Uri.UriSchemeHttps ? Protocol.HTTPS : Protocol.HTTP,
            Expires = _s3.Clock.GetUtcNow().AddSeconds(seconds).UtcDateTime,
        };
        request.ResponseHeaderOverrides.ContentDisposition = DownloadName.Disposition(downloadName);
        return new Uri(await _s3.Presigner.GetPreSignedURLAsync(request));
    }

    public void Dispose()
    {
        _s3.Dispose();
        _bucketGate.Dispose();
    }

    /// <summary>Whether tags are MD5s: not where the store encrypts with a key of its own service.</summary>
    internal static bool HasMd5(ServerSideEncryptionMethod? encryption) =>
        encryption is null || encryption == ServerSideEncryptionMethod.None || encryption == ServerSideEncryptionMethod.AES256;

    private static long PartBytesOf(long length) => Math.Max(PartBytes, (length + WantedParts - 1) / WantedParts);

    private async Task PutWholeAsync(
        string key, ReadOnlyMemory<byte> content, string contentType, IWriteFence? fence, CancellationToken cancellationToken)
    {
        var md5 = Convert.ToHexStringLower(Md5Tag.Of(content.Span));
        var answer = await _s3.SendAsync(
            "write",
            key,
            watch => _s3.Client.PutObjectAsync(
                new PutObjectRequest
                {
                    BucketName = _s3.Options.Bucket,
                    Key = key,
                    ContentType = contentType,
                    InputStream = new BodyStream(content, watch, fence),
                    UseChunkEncoding = false,
                },
                watch.Token),
            cancellationToken,
            fence);
        if (HasMd5(answer.ServerSideEncryptionMethod) && answer.ETag.Trim('"') != md5)
        {
            throw new ArtifactStoreException($"'{key}' was stored as {answer.ETag}; {md5} was sent.");
        }
    }

    private async Task VerifyAsync(StoredObject stored, CancellationToken cancellationToken)
    {
        await using var content = await this.OpenVerifiedAsync(stored.Key, stored.Bytes, stored.Sha256, cancellationToken)
            ?? throw new ArtifactStoreException($"'{stored.Key}' was not there after it was stored.");
        await content.CopyToAsync(Stream.Null, 1 << 16, cancellationToken);
    }

    private async Task EnsureBucketAsync(CancellationToken cancellationToken)
    {
        if (_bucketExists)
        {
            return;
        }

        await _bucketGate.WaitAsync(cancellationToken);
        try
        {
            if (!_bucketExists)
            {
                await CreateBucketAsync(cancellationToken);
                _bucketExists = true;
            }
        }
        finally
        {
            _bucketGate.Release();
        }
    }

    private async Task CreateBucketAsync(CancellationToken cancellationToken)
    {
        var bucket = _s3.Options.Bucket;
        try
        {
            await _s3.SendAsync(
                "find the bucket", bucket, watch => _s3.Client.HeadBucketAsync(new HeadBucketRequest { BucketName = bucket }, watch.Token), cancellationToken);
        }
        catch (ArtifactStoreException e) when (S3Failures.HasStatus(e.InnerException, HttpStatusCode.NotFound))
        {
            try
            {
                await _s3.SendAsync("create the bucket", bucket, watch => _s3.Client.PutBucketAsync(bucket, watch.Token), cancellationToken);
            }
            catch (ArtifactStoreException raced) when (S3Failures.HasStatus(raced.InnerException, HttpStatusCode.Conflict))
            {
                // Another process made it.
            }
        }
    }
}
