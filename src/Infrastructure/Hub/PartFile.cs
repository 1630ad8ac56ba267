using System.Net.Http.Headers;

namespace TrainingService.Infrastructure.Hub;

/// <summary>The beginning of a file that has not arrived whole, and the tag under which its server knows it.</summary>
internal sealed class PartFile(string path)
{
    private const int LongestTag = 256;

    private readonly string _part = path + ".part";
    private readonly string _tag = path + ".tag";

    public long Bytes => new FileInfo(_part) is { Exists: true } file ? file.Length : 0;

    /// <summary>Bytes that the disk still takes; null where that cannot be told.</summary>
    public long? FreeBytes => OperatingSystem.IsWindows() ? null : new DriveInfo(Path.GetDirectoryName(_part)!).AvailableFreeSpace;

    /// <summary>Opens it at its start. No buffer of ours: what was written is what a later try finds.</summary>
    public FileStream Open() => new(_part, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, 1, useAsync: true);

    public void WriteTag(EntityTagHeaderValue? tag)
    {
        if (tag is { IsWeak: false } && tag.Tag.Length <= LongestTag)
        {
            File.WriteAllText(_tag, tag.Tag);
        }
        else
        {
            File.Delete(_tag);
        }
    }

    public EntityTagHeaderValue? ReadTag() =>
        new FileInfo(_tag) is { Exists: true, Length: <= LongestTag } && EntityTagHeaderValue.TryParse(File.ReadAllText(_tag), out var tag) ? tag : null;

    public void Delete()
    {
        File.Delete(_part);
        File.Delete(_tag);
    }

    /// <summary>Gives the file its name.</summary>
    public void Complete()
    {
        File.Move(_part, path, overwrite: true);
        File.Delete(_tag);
    }
}
