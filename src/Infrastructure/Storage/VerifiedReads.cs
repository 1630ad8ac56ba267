using System.Security.Cryptography;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Reads of objects whose content is known beforehand.</summary>
public static class VerifiedReads
{
    /// <summary>
    /// Opens an object whose length and sha256 are known; null when there is none. The last bytes are handed out only after the hash
    /// was found right, so that nobody takes a damaged object for a whole one.
    /// </summary>
    public static async Task<Stream?> OpenVerifiedAsync(
        this IArtifactStore store, string key, long bytes, string sha256, CancellationToken cancellationToken) =>
        await store.OpenReadAsync(key, null, cancellationToken) is { } content ? new VerifiedStream(content, key, bytes, sha256) : null;

    private sealed class VerifiedStream(Stream inner, string key, long bytes, string sha256) : Stream
    {
        private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        private long _position;
        private bool _checked;

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => bytes;

        public override long Position
        {
            get => _position;
            set => throw new NotSupportedException();
        }

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            var read = await inner.ReadAsync(buffer, cancellationToken);
            _hash.AppendData(buffer.Span[..read]);
            _position += read;
            if (!_checked && (_position >= bytes || read == 0) && buffer.Length > 0)
            {
                _checked = true;
                var found = Convert.ToHexStringLower(_hash.GetHashAndReset());
                if (_position != bytes || found != sha256)
                {
                    throw new ArtifactStoreException($"'{key}' has {_position} bytes and sha256 {found}; it was stored with {bytes} and {sha256}.");
                }
            }
            else if (_position > bytes)
            {
                throw new ArtifactStoreException($"'{key}' has more than the {bytes} bytes that it was stored with.");
            }

            return read;
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
                inner.Dispose();
                _hash.Dispose();
            }

            base.Dispose(disposing);
        }
    }
}
