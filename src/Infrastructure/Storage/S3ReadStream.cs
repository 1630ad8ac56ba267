using System.Net;
using Amazon.S3.Model;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Storage;

/// <summary>An object's bytes. When the connection breaks, the rest is asked for, and only of the version that the first bytes came from.</summary>
internal sealed class S3ReadStream : Stream
{
    private readonly S3Connection _s3;
    private readonly string _key;
    private readonly string _tag;
    private readonly long _first;
    private readonly long _length;
    private GetObjectResponse? _response;
    private long _position;
    private int _failures;

    private S3ReadStream(S3Connection s3, string key, (long First, long Last)? range, GetObjectResponse response)
    {
        _s3 = s3;
        _key = key;
        _tag = response.ETag;
        _first = range?.First ?? 0;
        _length = response.ContentLength;
        _response = response;
    }

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => _length;

    public override long Position
    {
        get => _position;
        set => throw new NotSupportedException();
    }

    /// <returns>Null when there is no such object.</returns>
    public static async Task<S3ReadStream?> OpenAsync(
        S3Connection s3, string key, (long First, long Last)? range, CancellationToken cancellationToken)
    {
        var request = new GetObjectRequest { BucketName = s3.Options.Bucket, Key = key };
        if (range is { } wanted)
        {
            request.ByteRange = new ByteRange(wanted.First, wanted.Last);
        }

        try
        {
            var response = await s3.SendAsync("read", key, watch => s3.Client.GetObjectAsync(request, watch.Token), cancellationToken);
            return new S3ReadStream(s3, key, range, response);
        }
        catch (ArtifactStoreException e) when (S3Failures.HasStatus(e.InnerException, HttpStatusCode.NotFound))
        {
            return null;
        }
    }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        var wanted = buffer[..(int)Math.Min(buffer.Length, _length - _position)];
        if (wanted.Length == 0)
        {
            return 0;
        }

        while (true)
        {
            try
            {
                _response ??= await ReopenAsync(cancellationToken);
                using var watch = new IdleWatch(_s3.IdleLimit, cancellationToken);
                var read = await _response.ResponseStream.ReadAsync(wanted, watch.Token);
                if (read == 0)
                {
                    throw new IOException($"The connection ended {_length - _position} bytes before the end.");
                }

                _position += read;
                _failures = 0;
                return read;
            }
            catch (Exception e) when (!cancellationToken.IsCancellationRequested && S3Failures.IsOfStore(e))
            {
                _response?.Dispose();
                _response = null;
                if (!S3Connection.MayTryAgain(++_failures))
                {
                    throw S3Failures.Describe("read", _key, e);
                }
            }

            await _s3.DelayAsync(_failures, cancellationToken);
        }
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count) =>
        throw new NotSupportedException("An object of the store is read asynchronously.");

    public override void Flush()
    {
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _response?.Dispose();
            _response = null;
        }

        base.Dispose(disposing);
    }

    private async Task<GetObjectResponse> ReopenAsync(CancellationToken cancellationToken)
    {
        var request = new GetObjectRequest
        {
            BucketName = _s3.Options.Bucket,
            Key = _key,
            ByteRange = new ByteRange(_first + _position, _first + _length - 1),
            EtagToMatch = _tag,
        };
        try
        {
            var response = await _s3.SendAsync("read", _key, watch => _s3.Client.GetObjectAsync(request, watch.Token), cancellationToken);
            if (response.ETag == _tag && response.ContentLength == _length - _position)
            {
                return response;
            }

            response.Dispose();
        }
        catch (ArtifactStoreException e) when (S3Failures.HasStatus(e.InnerException, HttpStatusCode.PreconditionFailed)
            || S3Failures.HasStatus(e.InnerException, HttpStatusCode.NotFound))
        {
            // told below, as where a store ignores the condition
        }

        throw new ArtifactStoreException($"'{_key}' was replaced or deleted while it was read.");
    }
}
