using System.Collections;
using System.Diagnostics;
using System.Text;
using System.Text.Json;
using TrainingService.Training;

namespace TrainingService.Worker.Supervision;

/// <summary>One training process: a child that reports on standard output, obeys standard input, and dies when its supervisor does.</summary>
internal sealed class TrainingProcess : IDisposable
{
    /// <summary>How .NET shows the end by SIGKILL.</summary>
    public const int KilledExitCode = 128 + 9;

    /// <summary>The child gets these variables and no other: no connection string, no key, whatever the service was started with.</summary>
    private static readonly string[] Passed = ["PATH", "HOME", "USER", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES", "PYTORCH_ALLOC_CONF"];

    private static readonly string[] PassedPrefixes =
        ["LC_", "DOTNET_", "OMP_", "MKL_", "KMP_", "GOMP_", "CUDA_", "NVIDIA_", "NCCL_", "PYTORCH_CUDA_", "TCMALLOC_", "MALLOC_", "MIMALLOC_"];

    private readonly Process _process;

    private TrainingProcess(Process process) => _process = process;

    public static TrainingProcess Start(
        string executable, Allocator allocator, string specFile, string workFolder, string cacheFolder, string baseModelName, string? cudaDevice)
    {
        var start = StartInfo(
            executable, allocator, workFolder,
            ["train", "--spec", specFile, "--work", workFolder, "--cache", cacheFolder, "--base-model-name", baseModelName, "--supervised"]);
        if (cudaDevice is not null)
        {
            start.Environment["CUDA_VISIBLE_DEVICES"] = cudaDevice;
        }

        return new TrainingProcess(Process.Start(start) ?? throw new IOException("The training process did not start."));
    }

    /// <summary>How a verb is started under the conditions of training: environment and allocator.</summary>
    public static ProcessStartInfo StartInfo(string executable, Allocator allocator, string workFolder, IReadOnlyList<string> arguments)
    {
        var isAssembly = executable.EndsWith(".dll", StringComparison.OrdinalIgnoreCase);
        var start = new ProcessStartInfo(isAssembly ? "dotnet" : executable)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
            StandardOutputEncoding = Encoding.UTF8,
            StandardErrorEncoding = Encoding.UTF8,
            WorkingDirectory = workFolder,
        };
        foreach (var argument in isAssembly ? arguments.Prepend(executable) : arguments)
        {
            start.ArgumentList.Add(argument);
        }

        start.Environment.Clear();
        foreach (DictionaryEntry variable in Environment.GetEnvironmentVariables())
        {
            var name = (string)variable.Key;
            if (Passed.Contains(name) || PassedPrefixes.Any(prefix => name.StartsWith(prefix, StringComparison.Ordinal)))
            {
                start.Environment[name] = (string?)variable.Value;
            }
        }

        start.Environment["DOTNET_NOLOGO"] = "1";

        // The runtime's diagnostic sockets would stay in the temporary folder whenever the child is killed. An operator may switch them on.
        start.Environment.TryAdd("DOTNET_EnableDiagnostics", "0");
        foreach (var (name, value) in allocator.Variables)
        {
            start.Environment.TryAdd(name, value);
        }

        return start;
    }

    public int Id => _process.Id;

    /// <summary>Hands out the child's reports until it closes its output, and its exit code then.</summary>
    public async Task<int> ReadAsync(Action<Report> onReport, Action<string> onLog)
    {
        var log = Task.Run(async () =>
        {
            while (await _process.StandardError.ReadLineAsync() is { } line)
            {
                onLog(line);
            }
        });
        while (await _process.StandardOutput.ReadLineAsync() is { } line)
        {
            if (Parse(line) is { } report)
            {
                onReport(report);
            }
            else
            {
                onLog(line);
            }
        }

        await log;
        await _process.WaitForExitAsync();
        return _process.ExitCode;
    }

    /// <summary>Sends a command. A child that has just ended does not hear it any more, which is all right.</summary>
    public async Task SendAsync(string command)
    {
        try
        {
            await _process.StandardInput.WriteLineAsync(command);
            await _process.StandardInput.FlushAsync();
        }
        catch (IOException)
        {
            // The pipe is broken because the child has ended: its exit code tells the rest.
        }
    }

    public void Kill() => _process.Kill(entireProcessTree: true);

    /// <summary>Ends the process, should it still run: its supervisor has met a failure of its own.</summary>
    public void Dispose()
    {
        if (!_process.HasExited)
        {
            Kill();
        }

        _process.Dispose();
    }

    /// <summary>A report; null for a line that is none, such as what a native library prints.</summary>
    private static Report? Parse(string line)
    {
        if (!line.StartsWith('{'))
        {
            return null;
        }

        try
        {
            return JsonSerializer.Deserialize<Report>(line, SpecJson.Options);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
