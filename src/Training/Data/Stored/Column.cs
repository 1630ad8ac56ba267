using System.Runtime.InteropServices;

namespace TrainingService.Training.Data.Stored;

/// <summary>Takes bytes that are to be written.</summary>
internal delegate void WriteBytes(ReadOnlySpan<byte> bytes);

/// <summary>Fills the whole of a span.</summary>
internal delegate void ReadBytes(Span<byte> bytes);

/// <summary>A list of numbers that grows without being copied: a file of many rows has a few bytes of each in memory, and no more.</summary>
internal sealed class Column<T>
    where T : unmanaged
{
    private const int Bits = 14;
    private const int Chunk = 1 << Bits;

    private readonly List<T[]> _chunks = [];

    public int Count { get; private set; }

    public T this[int index] => _chunks[index >> Bits][index & (Chunk - 1)];

    public void Add(T value)
    {
        if (Count == _chunks.Count << Bits)
        {
            _chunks.Add(new T[Chunk]);
        }

        _chunks[^1][Count++ & (Chunk - 1)] = value;
    }

    public T[] ToArray()
    {
        var all = new T[Count];
        for (var i = 0; i < _chunks.Count; i++)
        {
            var start = i << Bits;
            _chunks[i].AsSpan(0, Math.Min(Chunk, Count - start)).CopyTo(all.AsSpan(start));
        }

        return all;
    }

    /// <summary>Hands the bytes of the numbers out, chunk by chunk.</summary>
    public void Write(WriteBytes write)
    {
        for (var i = 0; i < _chunks.Count; i++)
        {
            write(MemoryMarshal.AsBytes(_chunks[i].AsSpan(0, Math.Min(Chunk, Count - (i << Bits)))));
        }
    }

    /// <summary>Takes over as many numbers as <see cref="Write"/> handed out.</summary>
    public static Column<T> Read(int count, ReadBytes read)
    {
        var column = new Column<T> { Count = count };
        for (var start = 0; start < count; start += Chunk)
        {
            var chunk = new T[Chunk];
            read(MemoryMarshal.AsBytes(chunk.AsSpan(0, Math.Min(Chunk, count - start))));
            column._chunks.Add(chunk);
        }

        return column;
    }
}
