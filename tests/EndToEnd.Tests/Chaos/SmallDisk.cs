using System.Diagnostics;
using System.Globalization;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>A file system of a few megabytes that a test can fill and empty.</summary>
internal sealed class SmallDisk : IAsyncDisposable
{
    private SmallDisk(string folder) => Folder = folder;

    public string Folder { get; }

    private string Filler => Path.Combine(Folder, "filler");

    /// <summary>Mounts it; where this process may not mount, the test skips on a laptop and fails on CI.</summary>
    public static async Task<SmallDisk> MountAsync(int megabytes)
    {
        var folder = Directory.CreateTempSubdirectory("training-service-disk-").FullName;
        var size = string.Create(CultureInfo.InvariantCulture, $"size={megabytes}m");
        var (code, error) = await RunAsync("mount", "-t", "tmpfs", "-o", size, "tmpfs", folder);
        if (code == 0)
        {
            return new SmallDisk(folder);
        }

        Directory.Delete(folder);
        var message = $"A full disk needs a small one, and mounting it takes root: {error.Trim()}";
        Assert.SkipUnless(Environment.GetEnvironmentVariable("CI") == "true", message);
        throw new InvalidOperationException(message);
    }

    /// <summary>Leaves no more than so many bytes.</summary>
    public void Fill(long left = 0)
    {
        var free = new DriveInfo(Folder).AvailableFreeSpace;
        using var filler = new FileStream(Filler, FileMode.Append, FileAccess.Write);
        var block = new byte[4096];
        for (var bytes = free - left; bytes > 0; bytes -= block.Length)
        {
            try
            {
                filler.Write(block);
                filler.Flush();
            }
            catch (IOException) when (left == 0)
            {
                return;   // somebody else had the last of it
            }
        }
    }

    /// <summary>Gives the space back.</summary>
    public void Empty() => File.Delete(Filler);

    /// <summary>Hands the folder to another user.</summary>
    public async Task GiveToAsync(string user)
    {
        var (code, error) = await RunAsync("/bin/sh", "-c", $"chmod 700 '{Folder}' && chown {user} '{Folder}'");
        Assert.True(code == 0, error);
    }

    public async ValueTask DisposeAsync()
    {
        // Lazily: a process that is about to end may still hold a file.
        await RunAsync("umount", "-l", Folder);
        Directory.Delete(Folder);
    }

    private static async Task<(int Code, string Error)> RunAsync(string program, params string[] words)
    {
        using var process = Process.Start(new ProcessStartInfo(program, words) { RedirectStandardError = true })!;
        var error = await process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        return (process.ExitCode, error);
    }
}
