using System.Reflection;

namespace TrainingService.EndToEnd.Tests.Running;

/// <summary>Where things lie in the checkout and in the build output.</summary>
internal static class Repository
{
    /// <summary>Folder that holds <c>TrainingService.sln</c>.</summary>
    public static readonly string Root = FindRoot();

    /// <summary>Build output of one of the programs, from the same configuration as this test host.</summary>
    public static string Program(string project) => Path.GetFullPath(Path.Combine(
        AppContext.BaseDirectory, "..", "..", project, Path.GetFileName(AppContext.BaseDirectory.TrimEnd('/')), $"TrainingService.{project}.dll"));

    public static string Sample(params string[] parts) => Path.Combine([Root, "samples", .. parts]);

    private static string FindRoot()
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "TrainingService.sln")))
            {
                return folder.FullName;
            }
        }

        throw new InvalidOperationException($"{Assembly.GetExecutingAssembly().GetName().Name} must run from within the checkout.");
    }
}
