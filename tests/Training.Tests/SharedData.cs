namespace TrainingService.Training.Tests;

/// <summary>Real models, data and reference numbers that the repository does not contain.</summary>
/// <remarks>
/// Found in the folder that the variable TRAINING_SHARED names, or in a folder <c>shared</c> beside the repository. A test that needs them
/// is skipped where they are absent, and fails where the variable CI promises them.
/// </remarks>
internal static class SharedData
{
    private static readonly string? Root = Find();

    /// <summary>Path of a file or folder in the shared folder.</summary>
    public static string Path(params string[] parts)
    {
        if (Root is null)
        {
            const string Message = "The shared folder is absent: set TRAINING_SHARED to the folder that holds 'golden' and 'data'.";
            Assert.False(Environment.GetEnvironmentVariable("CI") == "true", Message);
            Assert.Skip(Message);
        }

        return System.IO.Path.Combine([Root, .. parts]);
    }

    private static string? Find()
    {
        if (Environment.GetEnvironmentVariable("TRAINING_SHARED") is { Length: > 0 } named)
        {
            return named;
        }

        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            var candidate = System.IO.Path.Combine(folder.FullName, "shared");
            if (File.Exists(System.IO.Path.Combine(candidate, "design.md")))
            {
                return candidate;
            }
        }

        return null;
    }
}
