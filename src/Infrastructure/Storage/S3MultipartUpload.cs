using System.Globalization;
using System.Net;
using System.Security.Cryptography;
using Amazon.S3.Model;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Storage;

/// <summary>One object that is sent in parts. Nothing of it is visible before <see cref="CompleteAsync"/>.</summary>
internal sealed class S3MultipartUpload
{
    /// <summary>The protocol's bound.</summary>
    public const int MostParts = 10_000;

    private readonly S3Connection _s3;
    private readonly string _key;
    private readonly string _id;
    private readonly IWriteFence? _fence;
    private readonly IReadOnlyDictionary<int, PartDetail> _stored;
    private readonly List<PartETag> _parts = [];
    private readonly IncrementalHash _chain = IncrementalHash.CreateHash(HashAlgorithmName.MD5);
    private long _bytes;

    private S3MultipartUpload(S3Connection s3, string key, string id, IWriteFence? fence, IReadOnlyDictionary<int, PartDetail> stored)
    {
        _s3 = s3;
        _key = key;
        _id = id;
        _fence = fence;
        _stored = stored;
    }

    /// <summary>Takes up the newest unfinished upload of the key and ends the others, or begins one.</summary>
    public static async Task<S3MultipartUpload> BeginAsync(
        S3Connection s3, string key, string contentType, IWriteFence? fence, CancellationToken cancellationToken)
    {
        var unfinished = new List<MultipartUpload>();
        await foreach (var upload in ListAsync(s3, key, cancellationToken))
        {
            if (upload.Key == key)
            {
                unfinished.Add(upload);
            }
        }

        var newestFirst = unfinished.OrderByDescending(upload => upload.Initiated).ToList();
        foreach (var upload in newestFirst.Skip(1))
        {
            await AbortAsync(s3, key, upload.UploadId, cancellationToken);
        }

        if (newestFirst.Count > 0)
        {
            var parts = await ListPartsAsync(s3, key, newestFirst[0].UploadId, cancellationToken);
            return new S3MultipartUpload(s3, key, newestFirst[0].UploadId, fence, parts);
        }

        var request = new InitiateMultipartUploadRequest { BucketName = s3.Options.Bucket, Key = key, ContentType = contentType };
        var begun = await s3.SendAsync(
            "begin", key, watch => s3.Client.InitiateMultipartUploadAsync(request, watch.Token), cancellationToken, fence);
        return new S3MultipartUpload(s3, key, begun.UploadId, fence, new Dictionary<int, PartDetail>());
    }

    /// <summary>All unfinished uploads below a prefix.</summary>
    public static async IAsyncEnumerable<MultipartUpload> ListAsync(
        S3Connection s3, string prefix, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var request = new ListMultipartUploadsRequest { BucketName = s3.Options.Bucket, Prefix = prefix };
        while (true)
        {
            ListMultipartUploadsResponse page;
            try
            {
                page = await s3.SendAsync(
                    "list the unfinished uploads of", prefix, watch => s3.Client.ListMultipartUploadsAsync(request, watch.Token), cancellationToken);
            }
            catch (ArtifactStoreException e) when (S3Failures.HasStatus(e.InnerException, HttpStatusCode.NotImplemented)
                || S3Failures.HasStatus(e.InnerException, HttpStatusCode.NotFound))
            {
                yield break;   // a store without this list, or without the bucket, has nothing to take up
            }

            foreach (var upload in page.MultipartUploads ?? [])
            {
                yield return upload;
            }

            if (page.IsTruncated is not true)
            {
                yield break;
            }

            request.KeyMarker = page.NextKeyMarker;
            request.UploadIdMarker = page.NextUploadIdMarker;
        }
    }

    public static async Task AbortAsync(S3Connection s3, string key, string id, CancellationToken cancellationToken)
    {
        var request = new AbortMultipartUploadRequest { BucketName = s3.Options.Bucket, Key = key, UploadId = id };
        try
        {
            await s3.SendAsync("abort", key, watch => s3.Client.AbortMultipartUploadAsync(request, watch.Token), cancellationToken);
        }
        catch (ArtifactStoreException e) when (S3Failures.HasStatus(e.InnerException, HttpStatusCode.NotFound))
        {
            // It ended meanwhile.
        }
    }

    /// <summary>Stores the next part, unless the upload that was taken up holds the same bytes there.</summary>
    public async Task AddAsync(ReadOnlyMemory<byte> part, CancellationToken cancellationToken)
    {
        var number = _parts.Count + 1;
        if (number > MostParts)
        {
            throw new ArtifactStoreException($"'{_key}' has more than {MostParts} parts; a stream of unknown length may have {(long)MostParts * S3ArtifactStore.PartBytes:N0} bytes.");
        }

        var md5 = Md5Tag.Of(part.Span);
        _chain.AppendData(md5);
        _bytes += part.Length;
        if (_stored.TryGetValue(number, out var old) && old.Size == part.Length && IsMd5(old.ETag, md5))
        {
            _parts.Add(new PartETag(number, old.ETag));
            return;
        }

        var answer = await _s3.SendAsync("write", _key, watch => _s3.Client.UploadPartAsync(PartRequest(number, part, watch), watch.Token), cancellationToken, _fence);
        if (S3ArtifactStore.HasMd5(answer.ServerSideEncryptionMethod) && !IsMd5(answer.ETag, md5))
        {
            throw new ArtifactStoreException($"Part {number} of '{_key}' was stored as {answer.ETag}; {Convert.ToHexStringLower(md5)} was sent.");
        }

        _parts.Add(new PartETag(number, answer.ETag));
    }

    /// <summary>Makes the object visible, and checks the length and the chain of hashes that the store reports.</summary>
    public async Task CompleteAsync(CancellationToken cancellationToken)
    {
        var chain = string.Create(CultureInfo.InvariantCulture, $"{Convert.ToHexStringLower(_chain.GetHashAndReset())}-{_parts.Count}");
        var request = new CompleteMultipartUploadRequest { BucketName = _s3.Options.Bucket, Key = _key, UploadId = _id, PartETags = _parts };
        try
        {
            // The store may copy everything before it answers.
            await _s3.SendAsync(
                "finish", _key, watch => _s3.Client.CompleteMultipartUploadAsync(request, watch.Token), cancellationToken, _fence, 10 * _s3.IdleLimit);
        }
        catch (ArtifactStoreException e) when (S3Failures.HasStatus(e.InnerException, HttpStatusCode.NotFound))
        {
            // An earlier try may have done it and its answer got lost; the check below decides.
        }

        var head = await _s3.SendAsync(
            "check", _key, watch => _s3.Client.GetObjectMetadataAsync(_s3.Options.Bucket, _key, watch.Token), cancellationToken);
        var etag = head.ETag.Trim('"');
        var isChain = etag.Length == chain.Length && etag[32..] == chain[32..] && S3ArtifactStore.HasMd5(head.ServerSideEncryptionMethod);
        if (head.ContentLength != _bytes || (isChain && etag != chain))
        {
            throw new ArtifactStoreException($"'{_key}' was stored with {head.ContentLength} bytes and tag {etag}; {_bytes} bytes with {chain} were sent.");
        }
    }

    /// <summary>Gives the upload up. Where even that fails, the clean-up of the store removes it later.</summary>
    public async Task TryAbortAsync()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(10));
        try
        {
            await AbortAsync(_s3, _key, _id, patience.Token);
        }
        catch (Exception e) when (e is ArtifactStoreException or OperationCanceledException)
        {
            // The failure that led here is the one to tell.
        }
    }

    private static async Task<IReadOnlyDictionary<int, PartDetail>> ListPartsAsync(
        S3Connection s3, string key, string id, CancellationToken cancellationToken)
    {
        var parts = new Dictionary<int, PartDetail>();
        var request = new ListPartsRequest { BucketName = s3.Options.Bucket, Key = key, UploadId = id };
        while (true)
        {
            var page = await s3.SendAsync("list the parts of", key, watch => s3.Client.ListPartsAsync(request, watch.Token), cancellationToken);
            foreach (var part in page.Parts ?? [])
            {
                parts[part.PartNumber ?? 0] = part;
            }

            if (page.IsTruncated is not true || page.NextPartNumberMarker is not { } next)
            {
                return parts;
            }

            request.PartNumberMarker = next.ToString(CultureInfo.InvariantCulture);
        }
    }

    private static bool IsMd5(string etag, ReadOnlySpan<byte> md5) =>
        etag.AsSpan().Trim('"').Equals(Convert.ToHexStringLower(md5), StringComparison.OrdinalIgnoreCase);

    private UploadPartRequest PartRequest(int number, ReadOnlyMemory<byte> part, IdleWatch watch) => new()
    {
        BucketName = _s3.Options.Bucket,
        Key = _key,
        UploadId = _id,
        PartNumber = number,
        PartSize = part.Length,
        InputStream = new BodyStream(part, watch, _fence),
        UseChunkEncoding = false,
    };
}
