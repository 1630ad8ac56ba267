namespace TrainingService.Tests;

/// <summary>A file of the repository that is generated from declarations.</summary>
internal static class GeneratedFile
{
    /// <summary>Writes the file when the environment variable UPDATE_SCHEMA is 1; otherwise fails when it is stale.</summary>
    public static void Check(string expected, params string[] path)
    {
        var file = Locate(path);
        if (Environment.GetEnvironmentVariable("UPDATE_SCHEMA") == "1")
        {
            Directory.CreateDirectory(Path.GetDirectoryName(file)!);
            File.WriteAllText(file, expected);
        }

        Assert.True(File.Exists(file), $"{file} is missing. {Remedy}");
        Assert.True(File.ReadAllText(file) == expected, $"{file} is stale. {Remedy}");
    }

    /// <summary>A path below the root of the repository.</summary>
    public static string Locate(params string[] path)
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "TrainingService.sln")))
        {
            folder = folder.Parent ?? throw new DirectoryNotFoundException("No TrainingService.sln above the test's folder.");
        }

        return Path.Combine([folder.FullName, .. path]);
    }

    private const string Remedy = "Run the tests of this class once with UPDATE_SCHEMA=1 and commit the change.";
}
