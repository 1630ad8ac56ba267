using Microsoft.Extensions.Options;
using TrainingService.Infrastructure;

namespace TrainingService.Worker.Supervision;

/// <summary>Where the worker's files lie.</summary>
internal sealed class WorkerPaths(IOptions<WorkerOptions> worker, IOptions<ServiceOptions> service)
{
    private const string Program = "TrainingService.Worker.dll";

    /// <summary>The program that trains.</summary>
    /// <exception cref="InvalidOperationException">It is nowhere: the installation is broken.</exception>
    public string Executable { get; } = FindProgram(worker.Value.Executable);

    /// <summary>What a training process allocates with.</summary>
    public Allocator Allocator { get; } = Allocator.Choose(worker.Value.Preload, File.Exists);

    /// <summary>Folder of everything that the worker writes.</summary>
    public string Root { get; } = RootOf(worker.Value, service.Value);

    public string Cache => Path.Combine(Root, "cache");

    /// <summary>Folder of the work folders.</summary>
    public string Attempts => Path.Combine(Root, "jobs");

    /// <summary>The work folder of one attempt.</summary>
    public string Attempt(Guid job, int attempt) => Path.Combine(Attempts, $"{job:N}-{attempt}");

    private static string RootOf(WorkerOptions worker, ServiceOptions service) =>
        Path.GetFullPath(worker.WorkFolder ?? Path.Combine(service.DataPath, "worker"));

    private static string FindProgram(string? configured)
    {
        var home = AppContext.BaseDirectory;
        var pivot = Path.GetFileName(Path.TrimEndingDirectorySeparator(home));
        string[] places = configured is not null
            ? [Path.GetFullPath(configured)]
            : [Path.Combine(home, "worker", Program), Path.GetFullPath(Path.Combine(home, "..", "..", "Worker", pivot, Program)), Path.Combine(home, Program)];
        var program = places.FirstOrDefault(File.Exists)
            ?? throw new InvalidOperationException($"The training program is in none of {string.Join(", ", places)}; set Worker:Executable.");

        // A self-contained folder brings its own runtime, which only its own starter uses; the machine may have no dotnet.
        var starter = Path.ChangeExtension(program, OperatingSystem.IsWindows() ? ".exe" : null);
        var runtime = Path.Combine(Path.GetDirectoryName(program)!, OperatingSystem.IsWindows() ? "coreclr.dll" : "libcoreclr.so");
        return File.Exists(runtime) && File.Exists(starter) ? starter : program;
    }
}
