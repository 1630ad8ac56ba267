using System.ComponentModel;
using System.Runtime.InteropServices;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Folders whose entries survive a loss of power: a name is on disk only once the folder that holds it has been flushed.</summary>
internal static partial class DurableFolder
{
    /// <summary>Creates a folder and what is missing above it, and flushes each folder that got an entry.</summary>
    public static void Create(string folder)
    {
        if (Directory.Exists(folder))
        {
            return;
        }

        var parent = Path.GetDirectoryName(folder)!;
        Create(parent);
        Directory.CreateDirectory(folder);
        Flush(parent);
    }

    /// <summary>Puts the entries of a folder on disk. Windows keeps them in a journal and needs nothing.</summary>
    /// <exception cref="IOException">The system reports that it could not.</exception>
    public static void Flush(string folder)
    {
        if (OperatingSystem.IsWindows())
        {
            return;
        }

        var handle = Open(folder, flags: 0);
        if (handle < 0)
        {
            throw Failure("open", folder);
        }

        try
        {
            if (Sync(handle) < 0)
            {
                throw Failure("flush", folder);
            }
        }
        finally
        {
            _ = Close(handle);
        }
    }

    private static IOException Failure(string verb, string folder)
    {
        var error = Marshal.GetLastPInvokeError();
        return new IOException($"Could not {verb} the folder '{folder}': {new Win32Exception(error).Message}.", error);
    }

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static partial int Sync(int handle);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    private static partial int Close(int handle);
}
