using System.Diagnostics;
using System.Text;

namespace TrainingService.Training.Tests.Runs;

/// <summary>The worker's program, from the same configuration as this test host.</summary>
internal static class WorkerProcess
{
    /// <summary>What <c>dotnet</c> runs.</summary>
    public static readonly string Program = Path.GetFullPath(Path.Combine(
        AppContext.BaseDirectory, "..", "..", "Worker", Path.GetFileName(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory)),
        "TrainingService.Worker.dll"));

    /// <summary>Starts a verb whose reports nobody waits for; standard error goes to the caller's.</summary>
    /// <param name="onLine">Called on another thread with each line of standard output.</param>
    public static Process Start(string[] arguments, Action<string> onLine)
    {
        var start = new ProcessStartInfo("dotnet", [Program, .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true };
        return Start(start, onLine);
    }

    /// <summary>Starts a verb with a standard input whose only writer is another process, so that it can be killed.</summary>
    /// <param name="folder">Gets the pipe, and <c>holder</c> with the id of that process.</param>
    public static Process StartHeld(string folder, string[] arguments, Action<string> onLine)
    {
        const string script = "cd \"$0\"; mkfifo pipe; sleep 600 > pipe & echo $! > holder; exec dotnet \"$@\" < pipe";
        var start = new ProcessStartInfo("sh", ["-c", script, folder, Program, .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true };
        return Start(start, onLine);
    }

    private static Process Start(ProcessStartInfo start, Action<string> onLine)
    {
        start.Environment["OMP_NUM_THREADS"] = "1";
        var process = Process.Start(start)!;
        process.OutputDataReceived += (_, line) => onLine(line.Data ?? "");
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        return process;
    }

    /// <summary>Runs a verb to its end.</summary>
    /// <param name="command">Line for standard input once step <paramref name="afterStep"/> was reported; empty: its end; null: nothing.</param>
    public static (int Exit, string[] Lines, string Errors) Run(string[] arguments, string? command = null, int afterStep = 0)
    {
        var start = new ProcessStartInfo("dotnet", [Program, .. arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["OMP_NUM_THREADS"] = "1";
        using var process = Process.Start(start)!;
        var errors = new StringBuilder();
        process.ErrorDataReceived += (_, line) => errors.AppendLine(line.Data);
        process.BeginErrorReadLine();
        var lines = new List<string>();
        while (process.StandardOutput.ReadLine() is { } line)
        {
            lines.Add(line);
            if (command is not null && line.Contains($"\"type\":\"step\",\"step\":{afterStep},", StringComparison.Ordinal))
            {
                if (command.Length > 0)
                {
                    process.StandardInput.WriteLine(command);
                    process.StandardInput.Flush();
                }
                else
                {
                    process.StandardInput.Close();
                }
            }
        }

        Assert.True(process.WaitForExit(TimeSpan.FromSeconds(60)));
        process.WaitForExit();   // until standard error is read to its end
        return (process.ExitCode, [.. lines], errors.ToString());
    }
}
