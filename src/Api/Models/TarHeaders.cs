using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace TrainingService.Api.Models;

/// <summary>
/// Looks at the headers of a tar archive on their way to the reader. The reader takes extended headers and long names into memory as a
/// whole, whatever size they claim.
/// </summary>
internal sealed class TarHeaders(Stream tar) : PassingStream(tar)
{
    private const int Block = 512;
    private const long LargestExtra = 64 * 1024;

    private readonly byte[] _header = new byte[Block];
    private readonly MemoryStream _extended = new();
    private int _filled;
    private long _rest;          // bytes before the next header
    private long _extendedRest;  // of them, those of an extended header's text
    private long? _nextSize;     // size of the next entry, where an extended header says it

    protected override void Passed(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            if (_rest > 0)
            {
                var passed = (int)Math.Min(_rest, bytes.Length);
                var text = (int)Math.Min(_extendedRest, passed);
                _extended.Write(bytes[..text]);
                _extendedRest -= text;
                _rest -= passed;
                bytes = bytes[passed..];
                continue;
            }

            var taken = Math.Min(Block - _filled, bytes.Length);
            bytes[..taken].CopyTo(_header.AsSpan(_filled));
            _filled += taken;
            bytes = bytes[taken..];
            if (_filled == Block)
            {
                _filled = 0;
                ReadHeader();
            }
        }
    }

    private void ReadHeader()
    {
        if (_extended.Length > 0)
        {
            _nextSize = SizeOf(Encoding.UTF8.GetString(_extended.GetBuffer(), 0, (int)_extended.Length)) ?? _nextSize;
            _extended.SetLength(0);
        }

        if (!_header.AsSpan().ContainsAnyExcept((byte)0))
        {
            return;   // the end, or what pads it
        }

        var size = Number(_header.AsSpan(124, 12));
        var type = (char)_header[156];
        if (type is 'x' or 'g' or 'L' or 'K')
        {
            if (size is < 0 or > LargestExtra)
            {
                throw new InvalidDataException($"A header of it claims {size} bytes, and at most {LargestExtra} are read");
            }

            _extendedRest = type == 'x' ? size : 0;
        }
        else
        {
            size = _nextSize ?? size;
            _nextSize = null;
        }

        if (size is < 0 or > long.MaxValue - Block)
        {
            throw new InvalidDataException("The size of an entry is no number");
        }

        _rest = (size + Block - 1) / Block * Block;
    }

    /// <summary>Octal digits, or a number of eight bytes behind a mark.</summary>
    private static long Number(ReadOnlySpan<byte> field)
    {
        if (field[0] >= 0x80)
        {
            return BinaryPrimitives.ReadInt64BigEndian(field[4..]);
        }

        var number = 0L;
        foreach (var digit in field.Trim(" \0"u8))
        {
            if (digit is < (byte)'0' or > (byte)'7')
            {
                return -1;
            }

            number = (number * 8) + digit - '0';
        }

        return number;
    }

    /// <summary>The record <c>size</c> of an extended header, which is lines of "length name=value".</summary>
    private static long? SizeOf(string text)
    {
        const string name = " size=";
        var at = text.LastIndexOf(name, StringComparison.Ordinal);
        if (at < 0)
        {
            return null;
        }

        var end = text.IndexOf('\n', at);
        return long.TryParse(text[(at + name.Length)..(end < 0 ? text.Length : end)], NumberStyles.None, CultureInfo.InvariantCulture, out var size)
            ? size
            : throw new InvalidDataException("The size of an entry is no number");
    }
}
