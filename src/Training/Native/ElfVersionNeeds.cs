using System.Buffers.Binary;
using System.Text;

namespace TrainingService.Training.Native;

/// <summary>Reads and weakens the version needs of a 64-bit little-endian ELF image (section <c>.gnu.version_r</c>).</summary>
/// <remarks>System V gABI and the Linux Standard Base, "Symbol Versioning": Elfxx_Verneed and Elfxx_Vernaux records.</remarks>
public static class ElfVersionNeeds
{
    private const int VersionNeedSection = 0x6ffffffe;   // SHT_GNU_verneed
    private const ushort WeakFlag = 0x2;                 // VER_FLG_WEAK: the loader no longer refuses when the version is absent

    /// <summary>Sets the weak flag on every need of <paramref name="version"/>, in place.</summary>
    /// <returns>True if a need that was not weak before is weak now.</returns>
    public static bool TryWeaken(Span<byte> image, string version)
    {
        if (image.Length < 64 || !image[..6].SequenceEqual("\u007fELF\u0002\u0001"u8))
        {
            return false;
        }

        var sections = (int)BinaryPrimitives.ReadInt64LittleEndian(image[0x28..]);
        var sectionSize = BinaryPrimitives.ReadUInt16LittleEndian(image[0x3A..]);
        var sectionCount = BinaryPrimitives.ReadUInt16LittleEndian(image[0x3C..]);
        var changed = false;
        for (var index = 0; index < sectionCount; index++)
        {
            var header = image[(sections + index * sectionSize)..];
            if (BinaryPrimitives.ReadInt32LittleEndian(header[4..]) != VersionNeedSection)
            {
                continue;
            }

            var offset = (int)BinaryPrimitives.ReadInt64LittleEndian(header[0x18..]);
            var names = image[(sections + BinaryPrimitives.ReadInt32LittleEndian(header[0x28..]) * sectionSize)..];
            var strings = (int)BinaryPrimitives.ReadInt64LittleEndian(names[0x18..]);
            var files = BinaryPrimitives.ReadInt32LittleEndian(header[0x2C..]);
            changed |= WeakenIn(image, offset, files, strings, version);
        }

        return changed;
    }

    private static bool WeakenIn(Span<byte> image, int need, int files, int strings, string version)
    {
        var changed = false;
        for (var file = 0; file < files; file++)
        {
            var entries = BinaryPrimitives.ReadUInt16LittleEndian(image[(need + 2)..]);
            var entry = need + BinaryPrimitives.ReadInt32LittleEndian(image[(need + 8)..]);
            for (var index = 0; index < entries; index++)
            {
                var flags = image[(entry + 4)..];
                var name = image[(strings + BinaryPrimitives.ReadInt32LittleEndian(image[(entry + 8)..]))..];
                var text = Encoding.ASCII.GetString(name[..name.IndexOf((byte)0)]);
                var current = BinaryPrimitives.ReadUInt16LittleEndian(flags);
                if (text == version && (current & WeakFlag) == 0)
                {
                    BinaryPrimitives.WriteUInt16LittleEndian(flags, (ushort)(current | WeakFlag));
                    changed = true;
                }

                entry += BinaryPrimitives.ReadInt32LittleEndian(image[(entry + 12)..]);
            }

            need += BinaryPrimitives.ReadInt32LittleEndian(image[(need + 12)..]);
        }

        return changed;
    }
}
