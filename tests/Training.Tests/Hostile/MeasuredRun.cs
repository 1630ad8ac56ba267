using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using TrainingService.Training.Tests.Runs;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>How a process with the verb <c>train</c> ended, and what it took.</summary>
/// <param name="PeakBytes">Most memory that it held, as the kernel counts it.</param>
/// <param name="Cpu">Time on all processors: unlike the time on the wall, the same on a busy machine.</param>
internal sealed record MeasuredRun(int Exit, string[] Lines, string Errors, long PeakBytes, TimeSpan Cpu)
{
    /// <summary>The report that a refused run ends with.</summary>
    public FailedReport Failed
    {
        get
        {
            Assert.True(Exit == 1, $"exit code {Exit}\n{Errors}");   // 134 and 139 are a stack that overflowed
            return Assert.IsType<FailedReport>(JsonSerializer.Deserialize<Report>(Lines[^1], SpecJson.Options));
        }
    }

    public static Task<MeasuredRun> OfAsync(RunFolder folder, object spec)
    {
        File.WriteAllText(folder.In("spec.json"), JsonSerializer.Serialize(spec));
        return OfAsync(folder);
    }

    /// <summary>Runs the <c>spec.json</c> of a folder.</summary>
    public static async Task<MeasuredRun> OfAsync(RunFolder folder)
    {
        var start = new ProcessStartInfo("dotnet", [WorkerProcess.Program, "train", "--spec", folder.In("spec.json"), "--work", folder.In("work")])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["OMP_NUM_THREADS"] = "1";
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        var (peak, cpu) = (0L, TimeSpan.Zero);
        var deadline = Stopwatch.StartNew();
        while (!process.HasExited)
        {
            (peak, cpu) = Measure(process, peak, cpu);
            if (deadline.Elapsed > TimeSpan.FromMinutes(3))
            {
                process.Kill();
                Assert.Fail("The process did not end.");
            }

            await Task.Delay(20, TestContext.Current.CancellationToken);
        }

        var lines = (await output).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        return new(process.ExitCode, lines, await errors, peak, cpu);
    }

    private static (long Peak, TimeSpan Cpu) Measure(Process process, long peak, TimeSpan cpu)
    {
        const string name = "VmHWM:";
        try
        {
            var line = File.ReadLines($"/proc/{process.Id}/status").FirstOrDefault(line => line.StartsWith(name, StringComparison.Ordinal));
            var now = process.TotalProcessorTime;
            return line is null
                ? (peak, cpu)
                : (long.Parse(line.AsSpan(name.Length).Trim().TrimEnd(" kB"), CultureInfo.InvariantCulture) * 1024, now);
        }
        catch (Exception gone) when (gone is IOException or InvalidOperationException)
        {
            return (peak, cpu);   // it ended while it was looked at
        }
    }
}
