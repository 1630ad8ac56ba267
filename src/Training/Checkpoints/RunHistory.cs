namespace TrainingService.Training.Checkpoints;

/// <summary>What a run wrote before a checkpoint and goes on with: its curves, its order of rows, its spectra on the way.</summary>
/// <remarks>
/// A copy lies in each checkpoint, under <c>before/</c>. So the checkpoint alone decides what a resumed run starts from, on any machine
/// and however the files in the work folder were torn; and what was written after it is gone.
/// </remarks>
internal static class RunHistory
{
    private const string Folder = "before";
    /// <summary>Files that every checkpoint has from here.</summary>
    public static IReadOnlyList<string> Files { get; } = [.. MetricsLog.Files.Select(name => $"{Folder}/{name}")];

    private const string Metrics = "metrics";
    private const string Spectra = "spectra";

    /// <summary>Copies the files of a run into a checkpoint that is being written.</summary>
    public static void Keep(string workFolder, string checkpoint)
    {
        var target = Path.Combine(checkpoint, Folder);
        Directory.CreateDirectory(target);
        foreach (var name in MetricsLog.Files)
        {
            File.Copy(Path.Combine(workFolder, Metrics, name), Path.Combine(target, name), overwrite: true);
        }

        CopySteps(Path.Combine(workFolder, Spectra), Path.Combine(target, Spectra));
    }

    /// <summary>Puts them back; without a checkpoint the run starts with none.</summary>
    public static void Restore(string? checkpoint, string workFolder)
    {
        var spectra = Path.Combine(workFolder, Spectra);
        if (Directory.Exists(spectra))
        {
            Directory.Delete(spectra, recursive: true);
        }

        if (checkpoint is null)
        {
            return;
        }

        var kept = Path.Combine(checkpoint, Folder);
        Directory.CreateDirectory(Path.Combine(workFolder, Metrics));
        foreach (var name in MetricsLog.Files)
        {
            File.Copy(Path.Combine(kept, name), Path.Combine(workFolder, Metrics, name), overwrite: true);
        }

        CopySteps(Path.Combine(kept, Spectra), spectra);
    }

    private static void CopySteps(string from, string to)
    {
        if (Directory.Exists(from))
        {
            foreach (var step in Directory.EnumerateDirectories(from, "step-*"))
            {
                CopyFolder(step, Path.Combine(to, Path.GetFileName(step)));
            }
        }
    }

    /// <summary>Copies the files of one folder, which has no folders inside.</summary>
    internal static void CopyFolder(string from, string to)
    {
        Directory.CreateDirectory(to);
        foreach (var file in Directory.EnumerateFiles(from))
        {
            File.Copy(file, Path.Combine(to, Path.GetFileName(file)), overwrite: true);
        }
    }
}
