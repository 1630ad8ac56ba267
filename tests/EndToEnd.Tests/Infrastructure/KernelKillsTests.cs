using System.Diagnostics;
using TrainingService.Worker.Supervision;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

public sealed class KernelKillsTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("training-kills-").FullName;

    [Fact]
    public void The_group_of_the_worker_is_asked_first_then_the_machine()
    {
        Write("proc/vmstat", "nr_free_pages 5\noom_kill 2\n");
        Assert.Equal(2, Kills().Read());

        Write("proc/self/cgroup", "4:cpu,memory:/a/b\n1:name=systemd:/\n0::/c\n");
        Assert.Equal(2, Kills().Read());

        Write("cgroups/memory/a/b/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
        Assert.Equal(5, Kills().Read());

        Write("cgroups/c/memory.events", "low 0\noom 1\noom_kill 9\noom_group_kill 3\n");
        Assert.Equal(9, Kills().Read());
    }

    [Fact]
    public void A_container_sees_its_own_group_as_the_root()
    {
        Write("proc/self/cgroup", "0::/../unseen\n");
        Write("cgroups/memory.events", "oom_kill 4\n");
        Assert.Equal(4, Kills().Read());
    }

    [Fact]
    public void A_system_that_does_not_say_is_no_evidence() => Assert.Null(Kills().Read());

    [Fact]
    public async Task A_kill_by_the_kernel_is_counted()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Memory groups are Linux's.");
        var mounted = File.ReadAllLines("/proc/self/cgroup").Select(line => line.Split(':', 3))
            .FirstOrDefault(parts => parts[1].Split(',').Contains("memory"));
        var (parent, limit) = mounted is null
            ? ("/sys/fs/cgroup", "memory.max")
            : ($"/sys/fs/cgroup/memory{mounted[2]}", "memory.limit_in_bytes");
        var group = Path.Combine(parent, $"training-test-{Guid.NewGuid():N}");
        try
        {
            Directory.CreateDirectory(group);
            File.WriteAllText(Path.Combine(group, limit), "33554432");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            if (Directory.Exists(group))
            {
                Directory.Delete(group);
            }

            Assert.Skip($"This machine lets nobody make a memory group: {e.Message}");
        }

        try
        {
            var name = mounted is null ? $"0::/{Path.GetFileName(group)}" : $"4:memory:{mounted[2].TrimEnd('/')}/{Path.GetFileName(group)}";
            Write("proc/self/cgroup", name + "\n");
            var kills = new KernelKills("/sys/fs/cgroup", Path.Combine(_folder, "proc"));
            var before = kills.Read();
            Assert.NotNull(before);

            // It keeps a line that never ends, in a group of 32 MB.
            using var eater = Process.Start("bash", ["-c", $"echo 0 > {group}/cgroup.procs; exec tail /dev/zero"])!;
            await eater.WaitForExitAsync(TestContext.Current.CancellationToken);

            Assert.True(kills.Read() > before, $"{kills.Read()} after {before}, exit code {eater.ExitCode}");
        }
        finally
        {
            await RemoveAsync(group);
        }
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>The kernel lets a group go a moment after its last process.</summary>
    private static async Task RemoveAsync(string group)
    {
        for (var tries = 0; ; tries++)
        {
            try
            {
                Directory.Delete(group);
                return;
            }
            catch (IOException) when (tries < 100)
            {
                await Task.Delay(100);
            }
        }
    }

    private KernelKills Kills() => new(Path.Combine(_folder, "cgroups"), Path.Combine(_folder, "proc"));

    private void Write(string path, string text)
    {
        var file = Path.Combine(_folder, path);
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllText(file, text);
    }
}
