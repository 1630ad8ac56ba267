using System.Diagnostics;
using TrainingService.EndToEnd.Tests.BadInput;
using TrainingService.EndToEnd.Tests.Running;
using TrainingService.Worker;

namespace TrainingService.EndToEnd.Tests.Verbs;

public sealed class AllocatorTests
{
    [Fact]
    public void The_best_library_that_is_installed_is_preloaded()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Preloading is Linux's.");
        const string Jemalloc = "/usr/lib64/libjemalloc.so.2";
        const string Tcmalloc = "/usr/local/lib/libtcmalloc_minimal.so.4";

        Assert.Equal(Jemalloc, Preloaded(null, Jemalloc));
        Assert.Equal(Tcmalloc, Preloaded(null, Jemalloc, Tcmalloc));
        Assert.Equal("/opt/mine.so", Preloaded("/opt/mine.so", Jemalloc, Tcmalloc));
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    public void Without_a_library_glibc_keeps_what_is_freed(string? chosen)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "glibc is Linux's.");
        var variables = Allocator.Choose(chosen, _ => chosen is not null).Variables;

        Assert.DoesNotContain("LD_PRELOAD", variables.Keys);
        Assert.Equal("", variables["Worker__Preload"]);   // or the process would look for a library itself
        Assert.Contains("MALLOC_TRIM_THRESHOLD_", variables.Keys);
    }

    [Fact]
    public async Task A_run_started_by_hand_starts_anew_in_its_allocator_and_ends_as_it_should()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Starting anew is Linux's.");
        using var inputs = new Inputs();
        var spec = Path.Combine(inputs.Folder, "spec.json");
        File.WriteAllText(spec, inputs.SpecFor(inputs.Model, inputs.Rows).ToJsonString());
        var start = new ProcessStartInfo(
            "dotnet", [Repository.Program("Worker"), "train", "--spec", spec, "--work", Path.Combine(inputs.Folder, "a folder with spaces"), "--supervised"])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["OMP_NUM_THREADS"] = "1";
        start.Environment["Worker__Preload"] = "";
        start.Environment.Remove("LD_PRELOAD");

        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        var reports = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);

        Assert.Equal(0, process.ExitCode);
        Assert.Contains("\"done\"", reports.Split('\n', StringSplitOptions.RemoveEmptyEntries)[^1], StringComparison.Ordinal);
        Assert.Contains("allocator: the system's, which keeps what is freed", await errors, StringComparison.Ordinal);
    }

    private static string Preloaded(string? chosen, params string[] installed) =>
        Allocator.Choose(chosen, path => installed.Contains(path)).Variables["LD_PRELOAD"];
}
