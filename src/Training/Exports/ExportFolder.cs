namespace TrainingService.Training.Exports;

/// <summary>A folder that appears whole, under its name, or not at all.</summary>
internal sealed class ExportFolder : IDisposable
{
    private readonly string _target;

    /// <exception cref="TrainingException">The target holds files already.</exception>
    public ExportFolder(string target)
    {
        _target = System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(target));
        if (File.Exists(_target) || (Directory.Exists(_target) && Directory.EnumerateFileSystemEntries(_target).Any()))
        {
            throw TrainingException.InvalidSpec("The output folder is not empty; give a new or an empty one.", "out");
        }

        Path = _target + ".part-" + System.IO.Path.GetRandomFileName();
        Directory.CreateDirectory(Path);
    }

    /// <summary>Where to write until <see cref="Publish"/>, beside the target and so on the same disk.</summary>
    public string Path { get; }

    /// <summary>Gives the folder its name.</summary>
    public void Publish()
    {
        if (Directory.Exists(_target))
        {
            Directory.Delete(_target);   // empty, as the constructor saw
        }

        Directory.Move(Path, _target);
    }

    /// <summary>Removes what was not published.</summary>
    public void Dispose()
    {
        if (Directory.Exists(Path))
        {
            Directory.Delete(Path, recursive: true);
        }
    }
}
