using System.Diagnostics;

namespace TrainingService.Tests;

/// <summary>A folder of a few pages of space, in memory: what is written to it meets a full disk.</summary>
internal sealed class MountedFolder : IAsyncDisposable
{
    private readonly string _folder;

    private MountedFolder(string folder) => _folder = folder;

    /// <summary>Mounts it; where this process may not mount, the test skips on a laptop and fails on CI.</summary>
    /// <param name="size">In the words of <c>mount</c>, such as <c>64k</c>.</param>
    public static async Task<MountedFolder> MountAsync(string folder, string size)
    {
        Directory.CreateDirectory(folder);
        var error = await RunAsync("mount", "-t", "tmpfs", "-o", $"size={size}", "tmpfs", folder);
        if (error.Length > 0)
        {
            var message = $"A full disk needs a small one, and mounting it takes root: {error.Trim()}";
            Assert.SkipUnless(Environment.GetEnvironmentVariable("CI") == "true", message);
            Assert.Fail(message);
        }

        return new MountedFolder(folder);
    }

    public async Task ResizeAsync(string size) => Assert.Empty(await RunAsync("mount", "-o", $"remount,size={size}", _folder));

    public async ValueTask DisposeAsync() => await RunAsync("umount", "-l", _folder);   // lazily: somebody may still read a file

    /// <summary>Runs a program of the system.</summary>
    /// <returns>What the program complains of; empty when it succeeds.</returns>
    public static async Task<string> RunAsync(string program, params string[] words)
    {
        using var process = Process.Start(new ProcessStartInfo(program, words) { RedirectStandardError = true })!;
        var error = await process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        return process.ExitCode == 0 ? "" : $"{program} ended with {process.ExitCode}: {error}";
    }
}
