using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;

namespace TrainingService.EndToEnd.Tests.Running;

/// <summary>What a process can be sent.</summary>
public enum Signal
{
    /// <summary>It ends at once and cleans nothing up.</summary>
    Kill = 9,

    /// <summary>It is asked to end.</summary>
    Terminate = 15,

    /// <summary>It goes on where it stood.</summary>
    Continue = 18,

    /// <summary>It stands still, as on a machine that hangs.</summary>
    Stop = 19,
}

/// <summary>One process of the service, and what it wrote.</summary>
public sealed class ServiceProcess : IAsyncDisposable
{
    private readonly Process _process;
    private readonly StringBuilder _log = new();

    private ServiceProcess(Process process)
    {
        _process = process;
        Id = process.Id;
        process.OutputDataReceived += Keep;
        process.ErrorDataReceived += Keep;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    public int Id { get; }

    /// <summary>Whether it ended although nobody had sent it a signal, and not well.</summary>
    public bool Crashed => _process.HasExited && _process.ExitCode != 0 && !Signalled;

    public bool HasExited => _process.HasExited;

    public int ExitCode => _process.ExitCode;

    public bool Signalled { get; private set; }

    public string Log
    {
        get
        {
            lock (_log)
            {
                return _log.ToString();
            }
        }
    }

    /// <summary>The training processes that it supervises.</summary>
    public IReadOnlyList<int> TrainingProcesses => [.. RunningProcesses.ChildrenOf(Id).Where(RunningProcesses.IsTraining)];

    /// <param name="program">Full path of the program, or its name on the path.</param>
    /// <param name="settings">Environment variables beside those of this process.</param>
    public static ServiceProcess Start(
        string program, IReadOnlyList<string> words, IEnumerable<KeyValuePair<string, string>> settings, string folder)
    {
        var start = new ProcessStartInfo(program, words)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = folder,
        };
        foreach (var (name, value) in settings)
        {
            start.Environment[name] = value;
        }

        return new ServiceProcess(Process.Start(start)!);
    }

    public void Send(Signal signal)
    {
        Signalled |= signal != Signal.Continue;
        RunningProcesses.Send(Id, signal);
    }

    public Task WaitForExitAsync(TimeSpan patience) => _process.WaitForExitAsync().WaitAsync(patience);

    /// <summary>Ends it as a power cut would, and waits until it is gone.</summary>
    public async Task KillAsync()
    {
        Send(Signal.Kill);
        await _process.WaitForExitAsync();
    }

    public async ValueTask DisposeAsync()
    {
        Signalled = true;
        _process.Kill(entireProcessTree: true);
        await _process.WaitForExitAsync();
        _process.Dispose();
    }

    private void Keep(object sender, DataReceivedEventArgs line)
    {
        lock (_log)
        {
            _log.AppendLine(line.Data);
        }
    }
}

/// <summary>The processes of this machine, by way of <c>/proc</c>.</summary>
public static class RunningProcesses
{
    private const int NoSuchProcess = 3;

    public static IEnumerable<int> ChildrenOf(int parent) =>
        from folder in Directory.EnumerateDirectories("/proc")
        let id = int.TryParse(Path.GetFileName(folder), out var number) ? number : 0
        where id > 0 && ParentOf(id) == parent
        select id;

    public static bool IsTraining(int id) => Read(id, "cmdline")?.Split('\0').Contains("--supervised") == true;

    /// <summary>Whether it has neither ended nor become a zombie.</summary>
    public static bool IsAlive(int id) => StateOf(id) is not (null or "Z");

    /// <summary>One letter, such as <c>T</c> for stopped; null: there is no such process.</summary>
    public static string? StateOf(int id) => Fields(id)?[0];

    /// <remarks>A process that has ended meanwhile gets nothing, which is all right: it has ended.</remarks>
    public static void Send(int id, Signal signal)
    {
        if (kill(id, (int)signal) != 0 && Marshal.GetLastPInvokeError() is var error and not NoSuchProcess)
        {
            throw new InvalidOperationException($"kill({id}, {signal}) failed with error {error}.");
        }
    }

    private static int? ParentOf(int id) => Fields(id) is { } fields ? int.Parse(fields[1], System.Globalization.CultureInfo.InvariantCulture) : null;

    /// <summary>The fields of <c>stat</c> from the state on; the name before them may hold anything.</summary>
    private static string[]? Fields(int id) => Read(id, "stat") is { Length: > 0 } stat ? stat[(stat.LastIndexOf(')') + 2)..].Split(' ') : null;

    private static string? Read(int id, string file)
    {
        try
        {
            return File.ReadAllText($"/proc/{id}/{file}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;   // ended between the listing and now
        }
    }

    [DllImport("libc", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int kill(int pid, int signal);
}
