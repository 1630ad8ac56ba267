namespace TrainingService.Api.Models;

/// <summary>Counts the bytes that were read from a stream.</summary>
internal sealed class CountingStream(Stream inner) : PassingStream(inner)
{
    public long Count { get; private set; }

    protected override void Passed(ReadOnlySpan<byte> bytes) => Count += bytes.Length;
}

/// <summary>What a decompressor gives, which ends where it makes much of little.</summary>
/// <param name="packed">What the decompressor reads.</param>
internal sealed class RatioStream(Stream inner, CountingStream packed, long freeBytes, long maxRatio) : PassingStream(inner)
{
    private long _count;

    protected override void Passed(ReadOnlySpan<byte> bytes)
    {
        _count += bytes.Length;
        if (_count > freeBytes && _count > maxRatio * packed.Count)
        {
            throw new InvalidDataException($"It expands more than {maxRatio} times, as no model does; send it as .tar, not compressed");
        }
    }
}

/// <summary>A stream that is read through another one.</summary>
internal abstract class PassingStream(Stream inner) : Stream
{
    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => throw new NotSupportedException();

    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        var count = await inner.ReadAsync(buffer, cancellationToken);
        Passed(buffer.Span[..count]);
        return count;
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count)
    {
        var read = inner.Read(buffer, offset, count);
        Passed(buffer.AsSpan(offset, read));
        return read;
    }

    public override void Flush() => throw new NotSupportedException();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    /// <summary>Sees what was read before the reader does.</summary>
    protected abstract void Passed(ReadOnlySpan<byte> bytes);
}
