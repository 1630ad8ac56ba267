using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;

namespace TrainingService.Infrastructure.Storage;

/// <summary>The hash that S3 stores report of what they hold.</summary>
internal static class Md5Tag
{
    [SuppressMessage("Security", "CA5351", Justification = "The protocol's tag; it finds accidents, and trust rests on sha256.")]
    public static byte[] Of(ReadOnlySpan<byte> bytes) => MD5.HashData(bytes);
}
