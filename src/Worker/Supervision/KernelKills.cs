using System.Globalization;

namespace TrainingService.Worker.Supervision;

/// <summary>
/// Counts the processes that the kernel has killed for want of memory. SIGKILL looks the same from the kernel and from anybody else:
/// only a count that rose while a process ran tells them apart.
/// </summary>
/// <param name="cgroups">Where control groups are mounted.</param>
/// <param name="proc">Where <c>proc</c> is mounted.</param>
internal sealed class KernelKills(string cgroups = "/sys/fs/cgroup", string proc = "/proc")
{
    /// <summary>
    /// How many there have been: in this process's memory group (version 2, else version 1), which its children share, else on the
    /// whole machine. Null: this system does not say.
    /// </summary>
    public long? Read() => Files().Select(Count).FirstOrDefault(count => count is not null);

    private IEnumerable<string> Files()
    {
        var groups = Lines(Path.Combine(proc, "self", "cgroup")).Select(line => line.Split(':', 3)).Where(parts => parts.Length == 3).ToList();
        foreach (var path in groups.Where(parts => parts[0] == "0").Select(parts => parts[2].TrimStart('/')))
        {
            yield return Path.Combine(cgroups, path, "memory.events");
            yield return Path.Combine(cgroups, "memory.events");   // a container sees its own group as the root
        }

        foreach (var path in groups.Where(parts => parts[1].Split(',').Contains("memory")).Select(parts => parts[2].TrimStart('/')))
        {
            yield return Path.Combine(cgroups, "memory", path, "memory.oom_control");
            yield return Path.Combine(cgroups, "memory", "memory.oom_control");
        }

        yield return Path.Combine(proc, "vmstat");
    }

    private static long? Count(string file)
    {
        foreach (var line in Lines(file))
        {
            var parts = line.Split(' ', 2);
            if (parts is ["oom_kill", var number] && long.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out var count))
            {
                return count;
            }
        }

        return null;
    }

    private static string[] Lines(string file)
    {
        try
        {
            return File.Exists(file) ? File.ReadAllLines(file) : [];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];   // a system that keeps it secret does not say
        }
    }
}
