using System.Runtime.InteropServices;

namespace TrainingService.Training.Checkpoints;

/// <summary>Files and folders that a power loss leaves whole: what is written is on the disk before anything else says that it is there.</summary>
internal static partial class DurableFile
{
    private const int ReadOnlyAndClosedOnExec = 0x80000;
    private const int InvalidArgument = 22;
    private const int NotSupported = 95;

    /// <summary>Writes a file that is either whole or absent, or as it was before.</summary>
    public static void Write(string path, ReadOnlySpan<byte> content)
    {
        var part = path + ".part";
        using (var stream = new FileStream(part, FileMode.Create, FileAccess.Write))
        {
            stream.Write(content);
            stream.Flush(flushToDisk: true);
        }

        File.Move(part, path, overwrite: true);
        FlushFolder(Path.GetDirectoryName(path)!);
    }

    /// <summary>Waits until the content of a file is on the disk.</summary>
    public static void Flush(string path)
    {
        // Windows flushes only through a handle that may write.
        using var handle = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        RandomAccess.FlushToDisk(handle);
    }

    /// <summary>Waits until the names in a folder are on the disk. Windows' file system sees to that by itself.</summary>
    public static void FlushFolder(string folder)
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }

        var descriptor = Open(folder, ReadOnlyAndClosedOnExec);
        if (descriptor < 0)
        {
            throw Failure(folder);
        }

        var result = Sync(descriptor);
        var error = Marshal.GetLastPInvokeError();
        _ = Close(descriptor);
        if (result != 0 && error is not (InvalidArgument or NotSupported))   // a file system that has no such thing
        {
            Marshal.SetLastPInvokeError(error);
            throw Failure(folder);
        }
    }

    /// <summary>Gives a folder another name, which is on the disk on return.</summary>
    public static void MoveFolder(string from, string to)
    {
        Directory.Move(from, to);
        FlushFolder(Path.GetDirectoryName(to)!);
    }

    private static IOException Failure(string folder) => new(
        $"The folder '{folder}' could not be flushed to the disk: {Marshal.GetLastPInvokeErrorMessage()}", Marshal.GetLastPInvokeError());

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static partial int Sync(int descriptor);

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int descriptor);
}
