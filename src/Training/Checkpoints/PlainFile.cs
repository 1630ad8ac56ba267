using System.Runtime.InteropServices;

namespace TrainingService.Training.Checkpoints;

/// <summary>A file of strangers, looked at before it is opened: a pipe blocks whoever opens it, and a device never ends.</summary>
public static partial class PlainFile
{
    /// <summary>How many bytes there are behind every link on the way; 0 where there is nothing.</summary>
    /// <param name="param">What names the file, for the error; null: its own name.</param>
    /// <exception cref="TrainingException">It is a pipe, a socket or a device.</exception>
    public static long LengthOf(string path, string? param = null)
    {
        if (OperatingSystem.IsLinux() && Look(path) is { } seen)
        {
            const int typeMask = 0xF000;
            const int regular = 0x8000;
            const int folder = 0x4000;
            var name = Path.GetFileName(path);
            return (seen.Mode & typeMask) is regular or folder
                ? seen.Bytes
                : throw TrainingException.InvalidData(
                    $"'{name}' is a pipe, a socket or a device, which is never opened; give a regular file.", param ?? name);
        }

        return new FileInfo(path) is { Exists: true } file ? file.Length : 0;
    }

    /// <summary>Null when the path leads nowhere, and where the call is not there or not allowed.</summary>
    private static (int Mode, long Bytes)? Look(string path)
    {
        // struct statx has the same layout on every architecture, which struct stat has not.
        const int currentFolder = -100;
        const uint typeAndSize = 0x0201;
        const int mode = 28;
        const int size = 40;
        Span<byte> result = stackalloc byte[256];
        return Statx(currentFolder, path, 0, typeAndSize, ref MemoryMarshal.GetReference(result)) == 0
            ? (MemoryMarshal.Read<ushort>(result[mode..]), MemoryMarshal.Read<long>(result[size..]))
            : null;
    }

    [LibraryImport("libc", EntryPoint = "statx", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Statx(int folder, string path, int flags, uint mask, ref byte result);
}
