using System.Globalization;

namespace TrainingService.Training;

/// <summary>How much memory this process can have at most.</summary>
internal static class MachineMemory
{
    private static readonly string[] Limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

    /// <summary>The machine's memory, or the limit of the container if that is lower.</summary>
    public static long Bytes { get; } = Math.Min(Total(), Limits.Where(File.Exists).Select(Limit).DefaultIfEmpty(long.MaxValue).Min());

    private static long Total()
    {
        // The runtime's own figure is lower where a limit of its heap is set.
        const string name = "MemTotal:";
        var line = OperatingSystem.IsLinux()
            ? File.ReadLines("/proc/meminfo").FirstOrDefault(line => line.StartsWith(name, StringComparison.Ordinal))
            : null;
        return line is not null && long.TryParse(line.AsSpan(name.Length).Trim().TrimEnd(" kB"), CultureInfo.InvariantCulture, out var kilobytes)
            ? kilobytes * 1024
            : GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;
    }

    private static long Limit(string path) =>
        long.TryParse(File.ReadAllText(path), CultureInfo.InvariantCulture, out var bytes) ? bytes : long.MaxValue;   // "max": none
}
