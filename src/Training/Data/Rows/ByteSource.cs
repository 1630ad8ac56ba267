namespace TrainingService.Training.Data.Rows;

/// <summary>Bytes of a stream through one buffer, with a look ahead. Owns the stream.</summary>
/// <param name="limits">Null: read to the end.</param>
/// <param name="cancellationToken">Asked at each buffer, so that a row of any length can be left.</param>
internal sealed class ByteSource(Stream stream, ReadingLimits? limits = null, CancellationToken cancellationToken = default) : IDisposable
{
    /// <summary>Code of the fault that says that the rest was left out.</summary>
    public const string LookIsOver = "look_is_over";

    private long _read;
    private readonly byte[] _buffer = new byte[64 * 1024];
    private int _start;
    private int _end;

    /// <summary>Bytes read and not yet taken; empty only at the end of the stream.</summary>
    public ReadOnlySpan<byte> Available
    {
        get
        {
            if (_start == _end)
            {
                cancellationToken.ThrowIfCancellationRequested();
                if (limits is not null && (_read > limits.Bytes || limits.Over.IsCancellationRequested))
                {
                    throw new RowException(LookIsOver, "the rest of the file is left out");
                }

                _start = 0;
                _end = stream.Read(_buffer, 0, _buffer.Length);
                _read += _end;
            }

            return _buffer.AsSpan(_start, _end - _start);
        }
    }

    /// <summary>The first bytes of the stream, up to one buffer of them. Only before anything was taken.</summary>
    public ReadOnlySpan<byte> Head()
    {
        _end = stream.ReadAtLeast(_buffer, _buffer.Length, throwOnEndOfStream: false);
        _read += _end;
        return _buffer.AsSpan(0, _end);
    }

    public void Take(int count) => _start += count;

    /// <summary>The next byte, or -1 at the end.</summary>
    public int Next()
    {
        var available = Available;
        if (available.IsEmpty)
        {
            return -1;
        }

        _start++;
        return available[0];
    }

    public void Dispose() => stream.Dispose();
}
