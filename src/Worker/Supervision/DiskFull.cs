namespace TrainingService.Worker.Supervision;

/// <summary>Recognises a full disk, and says what to do about it.</summary>
internal static class DiskFull
{
    /// <summary>How libc says it; the training process quotes that in its reports.</summary>
    private static readonly string[] Words = ["No space left on device", "Disk quota exceeded", "not enough space on the disk"];

    /// <summary>ENOSPC and EDQUOT, or ERROR_DISK_FULL of Windows.</summary>
    public static bool Is(Exception failure) => failure is IOException && (failure.HResult & 0xFFFF) is 28 or 122 or 112;

    public static bool Says(string message) => Words.Any(words => message.Contains(words, StringComparison.OrdinalIgnoreCase));

    /// <param name="folder">Where nothing could be written.</param>
    public static string Sentence(string folder) =>
        $"The worker's disk is full: free space in '{folder}', or point Worker:WorkFolder to a larger disk; the job tries again by itself.";
}
