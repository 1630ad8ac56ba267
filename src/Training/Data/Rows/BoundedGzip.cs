using ICSharpCode.SharpZipLib;
using ICSharpCode.SharpZipLib.GZip;

namespace TrainingService.Training.Data.Rows;

/// <summary>Decompression that stops when a small file grows without end.</summary>
/// <remarks>SharpZipLib rather than .NET's own GZipStream, which takes a file that is cut off for one that ends there. Deflate expands at most about 1032 times; text, even JSON with equal keys, stays below 50. SharpZipLib
/// does not check every number of a damaged block before it is used as an index.</remarks>
internal sealed class BoundedGzip(FileStream compressed) : Stream
{
    private const long FreeBytes = 64L * 1024 * 1024;
    private const long MaxRatio = 200;
    private const long MaxBytes = 256L * 1024 * 1024 * 1024;

    private readonly GZipInputStream _gzip = new(compressed, 64 * 1024);
    private long _written;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => throw new NotSupportedException();

    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    public override int Read(byte[] buffer, int offset, int count)
    {
        int read;
        try
        {
            read = _gzip.Read(buffer, offset, count);
        }
        catch (Exception damaged) when (damaged is SharpZipBaseException or EndOfStreamException or IndexOutOfRangeException or ArgumentException)
        {
            throw new RowException("damaged_gzip", $"the gzip data is damaged or cut off ({damaged.Message}); compress the file again");
        }

        _written += read;
        if (_written > MaxBytes || (_written > FreeBytes && _written > MaxRatio * compressed.Position))
        {
            throw new RowException(
                "gzip_bomb", $"the gzip data expands more than {MaxRatio} times, or beyond {MaxBytes >> 30} GiB; upload the file uncompressed");
        }

        return read;
    }

    public override void Flush() => throw new NotSupportedException();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _gzip.Dispose();
        }

        base.Dispose(disposing);
    }
}
