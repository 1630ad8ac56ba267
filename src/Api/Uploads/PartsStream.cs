using System.Security.Cryptography;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.Api.Uploads;

/// <summary>Parts one after the other, each checked against its sha256, with the MD5 of the whole; one is open at a time.</summary>
internal sealed class PartsStream(IArtifactStore store, IReadOnlyList<UploadPart> parts) : Stream
{
    private readonly IncrementalHash _md5 = IncrementalHash.CreateHash(HashAlgorithmName.MD5);
    private Stream? _part;
    private int _next;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <summary>MD5 of what was read; resets.</summary>
    public byte[] TakeMd5() => _md5.GetHashAndReset();

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        while (true)
        {
            if (_part is null)
            {
                if (_next == parts.Count)
                {
                    return 0;
                }

                var part = parts[_next++];
                _part = await store.OpenVerifiedAsync(part.StorageKey, part.Bytes, part.Sha256, cancellationToken)
                    ?? throw new ArtifactStoreException($"'{part.StorageKey}' is missing in the artifact store.");
            }

            var read = await _part.ReadAsync(buffer, cancellationToken);
            if (read > 0)
            {
                _md5.AppendData(buffer.Span[..read]);
                return read;
            }

            await _part.DisposeAsync();
            _part = null;
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
            _part?.Dispose();
            _md5.Dispose();
        }

        base.Dispose(disposing);
    }
}
