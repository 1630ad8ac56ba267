using System.Buffers.Binary;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>Bytes that look random, depend on a seed and their place alone, and are never held in memory.</summary>
internal class SeededStream(ulong seed, long length) : Stream
{
    public override bool CanRead => true;

    public override bool CanSeek => true;

    public override bool CanWrite => false;

    public override long Length => length;

    public override long Position { get; set; }

    public override int Read(Span<byte> buffer)
    {
        var wanted = buffer[..(int)Math.Min(buffer.Length, length - Position)];
        Span<byte> word = stackalloc byte[8];
        for (var done = 0; done < wanted.Length;)
        {
            var within = (int)(Position & 7);
            BinaryPrimitives.WriteUInt64LittleEndian(word, Word((ulong)(Position >> 3)));
            var count = Math.Min(8 - within, wanted.Length - done);
            word.Slice(within, count).CopyTo(wanted[done..]);
            done += count;
            Position += count;
        }

        return wanted.Length;
    }

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
        ValueTask.FromResult(Read(buffer.Span));

    public override long Seek(long offset, SeekOrigin origin) => Position = origin switch
    {
        SeekOrigin.Begin => offset,
        SeekOrigin.Current => Position + offset,
        _ => length + offset,
    };

    public override void Flush()
    {
    }

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    /// <summary>SplitMix64 of Steele, Lea and Flood (OOPSLA 2014): one step from seed + place.</summary>
    private ulong Word(ulong place)
    {
        unchecked
        {
            var z = seed + ((place + 1) * 0x9E3779B97F4A7C15);
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            return z ^ (z >> 31);
        }
    }
}
