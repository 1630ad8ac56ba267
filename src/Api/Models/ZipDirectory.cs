using System.Buffers.Binary;

namespace TrainingService.Api.Models;

/// <summary>How long the directory of a zip archive is. .NET reads all of it into memory before the first entry can be looked at.</summary>
internal static class ZipDirectory
{
    private const int EndLength = 22;
    private const int LongestComment = 65_535;
    private const int LocatorLength = 20;
    private const uint EndSignature = 0x06054b50;
    private const uint LocatorSignature = 0x07064b50;

    /// <summary>Bytes from the first entry of the directory to the end of the file. The stream's position is changed.</summary>
    /// <exception cref="InvalidDataException">There is no directory.</exception>
    public static async Task<long> LengthAsync(FileStream zip, CancellationToken cancellationToken)
    {
        var tail = new byte[(int)Math.Min(zip.Length, EndLength + LongestComment + LocatorLength)];
        zip.Position = zip.Length - tail.Length;
        await zip.ReadExactlyAsync(tail, cancellationToken);
        for (var at = tail.Length - EndLength; at >= 0; at--)
        {
            if (BinaryPrimitives.ReadUInt32LittleEndian(tail.AsSpan(at)) == EndSignature)
            {
                var start = await StartAsync(zip, tail, at, cancellationToken);
                return start >= 0 && start <= zip.Length ? zip.Length - start : throw new InvalidDataException("Its directory lies outside of it");
            }
        }

        throw new InvalidDataException("It has no directory; it is no zip archive, or cut off");
    }

    private static async Task<long> StartAsync(FileStream zip, byte[] tail, int end, CancellationToken cancellationToken)
    {
        var start = BinaryPrimitives.ReadUInt32LittleEndian(tail.AsSpan(end + 16));
        var locator = end - LocatorLength;
        if (start != uint.MaxValue || locator < 0 || BinaryPrimitives.ReadUInt32LittleEndian(tail.AsSpan(locator)) != LocatorSignature)
        {
            return start;
        }

        // The 64-bit record stands apart, and the locator says where.
        var record = BinaryPrimitives.ReadInt64LittleEndian(tail.AsSpan(locator + 8));
        const int startInRecord = 48;
        if (record < 0 || record > zip.Length - startInRecord - sizeof(long))
        {
            throw new InvalidDataException("Its directory lies outside of it");
        }

        var number = new byte[sizeof(long)];
        zip.Position = record + startInRecord;
        await zip.ReadExactlyAsync(number, cancellationToken);
        return BinaryPrimitives.ReadInt64LittleEndian(number);
    }
}
