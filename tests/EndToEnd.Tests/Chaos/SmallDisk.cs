using System.Globalization;
using TrainingService.Tests;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>A file system of a few megabytes that a test can fill and empty.</summary>
internal sealed class SmallDisk : IAsyncDisposable
{
    private readonly MountedFolder _mounted;

    private SmallDisk(string folder, MountedFolder mounted) => (Folder, _mounted) = (folder, mounted);

    public string Folder { get; }

    private string Filler => Path.Combine(Folder, "filler");

    public static async Task<SmallDisk> MountAsync(int megabytes)
    {
        var folder = Directory.CreateTempSubdirectory("training-service-disk-").FullName;
        return new SmallDisk(folder, await MountedFolder.MountAsync(folder, string.Create(CultureInfo.InvariantCulture, $"{megabytes}m")));
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
    public async Task GiveToAsync(string user) =>
        Assert.Empty(await MountedFolder.RunAsync("/bin/sh", "-c", $"chmod 700 '{Folder}' && chown {user} '{Folder}'"));

    public async ValueTask DisposeAsync()
    {
        await _mounted.DisposeAsync();
        Directory.Delete(Folder);
    }
}
