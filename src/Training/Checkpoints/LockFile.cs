namespace TrainingService.Training.Checkpoints;

/// <summary>Files that say who uses what. A lock goes with the process that holds it, however that ends.</summary>
public static class LockFile
{
    /// <summary>Takes a lock; null when somebody else holds it in a way that excludes this one.</summary>
    /// <param name="shared">Whether others may hold it in the same way.</param>
    public static FileStream? TryTake(string path, bool shared = false)
    {
        while (true)
        {
            FileStream file;
            try
            {
                file = new FileStream(
                    path, FileMode.OpenOrCreate, shared ? FileAccess.Read : FileAccess.ReadWrite, shared ? FileShare.Read : FileShare.None);
            }
            catch (IOException e) when (IsHeld(e))
            {
                return null;
            }

            if (File.Exists(path))
            {
                return file;
            }

            file.Dispose();   // it was removed between its opening and its locking, and a lock on it would mean nothing
        }
    }

    /// <summary>EWOULDBLOCK of Linux and macOS, and a sharing violation of Windows.</summary>
    private static bool IsHeld(IOException e) => e.HResult is 11 or 35 or unchecked((int)0x80070020);
}
