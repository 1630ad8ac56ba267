using System.CommandLine;
using System.Runtime.InteropServices;
using System.Text.Json;
using TorchSharp;
using TrainingService.Training;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Worker.Verbs;

/// <summary><c>train</c>: one run, without any service.</summary>
/// <remarks>
/// Standard output is one <see cref="Report"/> per line, unless it is a terminal; standard error is for people. With
/// <c>--supervised</c> standard input takes <c>cancel</c> and <c>checkpoint-and-stop</c>, and its end means that the supervisor is gone.
/// Ctrl-C and SIGTERM save a checkpoint and stop.
/// </remarks>
internal static class TrainVerb
{
    private const long LargestSpecBytes = 4 << 20;

    private static readonly JsonSerializerOptions Line = new(SpecJson.Options) { WriteIndented = false };

    public static Command Create()
    {
        var spec = new Option<FileInfo>("--spec") { Required = true, Description = "The training spec, a JSON file; its paths are local." };
        var work = new Option<DirectoryInfo>("--work")
        {
            Required = true,
            Description = "Folder of the artifacts; one that holds checkpoints of this spec is gone on with.",
        };
        var cache = new Option<DirectoryInfo?>("--cache")
        {
            Description = "Folder that keeps token sequences for later runs; without it they lie in the work folder until the run is complete.",
        };
        var supervised = new Option<bool>("--supervised") { Description = "Take commands from standard input, and end when it ends." };
        var baseName = new Option<string?>("--base-model-name") { Description = "Name of the base model to write into the adapter's files." };
        var command = new Command("train", "One run: reads a spec, trains, writes the artifacts.") { spec, work, cache, supervised, baseName };
        command.SetAction(parsed => Run(
            parsed.GetRequiredValue(spec), parsed.GetRequiredValue(work), parsed.GetValue(cache), parsed.GetValue(supervised),
            parsed.GetValue(baseName)));
        return command;
    }

    private static int Run(FileInfo specFile, DirectoryInfo work, DirectoryInfo? cache, bool supervised, string? baseName)
    {
        using var output = new StreamWriter(Console.OpenStandardOutput()) { AutoFlush = true, NewLine = "\n" };
        using var cancellation = new CancellationTokenSource();
        var control = new RunControl();
        var progress = Console.IsErrorRedirected ? null : new ProgressLine();
        void Send(Report report)
        {
            if (Console.IsOutputRedirected)
            {
                output.WriteLine(JsonSerializer.Serialize(report, Line));
            }

            progress?.Show(report);
        }

        if (supervised)
        {
            new Thread(() => Obey(control, cancellation)) { IsBackground = true, Name = "supervisor" }.Start();
        }

        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, signal => Stop(signal, control));
        using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, signal => Stop(signal, control));
        try
        {
            var spec = Read(specFile, Send);
            if (spec is null)
            {
                return ExitCodes.Failed;
            }

            Console.Error.WriteLine($"allocator: {Allocator.InUse()}");

            // libtorch takes most of a second to load: that happens while the rows are read.
            new Thread(() => torch.zeros(1).Dispose()) { IsBackground = true, Name = "libtorch" }.Start();
            Send(TrainingRun.Execute(spec, work.FullName, Send, control, cancellation.Token, baseName, cache?.FullName));
            progress?.End($"Done: {work.FullName}");
            return ExitCodes.Done;
        }
        catch (RunStoppedException stopped)
        {
            progress?.End("");
            Console.Error.WriteLine(stopped.Message);
            return ExitCodes.Stopped;
        }
        catch (OperationCanceledException)
        {
            progress?.End("Cancelled.");
            return ExitCodes.Cancelled;
        }
        catch (Exception error)   // the edge of the process: everything is answered here, and nothing is hidden
        {
            var failure = Failures.Describe(error);
            progress?.End("");
            Console.Error.WriteLine($"error: {failure.Param}: {failure.Message}");
            if (error is not TrainingException)
            {
                Console.Error.WriteLine(error);
            }

            Send(failure);
            return ExitCodes.Failed;
        }
    }

    /// <summary>The spec; null after everything that is wrong with it was said.</summary>
    private static TrainingSpec? Read(FileInfo file, Action<Report> send)
    {
        var bytes = file.Exists ? PlainFile.LengthOf(file.FullName, "--spec") : 0;
        if (!file.Exists || bytes > LargestSpecBytes)
        {
            throw TrainingException.InvalidSpec(
                file.Exists
                    ? $"{file.Name} has {bytes} bytes, and a spec may have {LargestSpecBytes}; give a training spec, not the rows."
                    : $"There is no spec file '{file.FullName}'; give the path of a JSON file.",
                "--spec");
        }

        var result = SpecJson.Parse(File.ReadAllText(file.FullName));
        foreach (var error in result.Errors)
        {
            Console.Error.WriteLine($"error: {error.Path}: {error.Message}");
        }

        if (result.Errors.Count > 0)
        {
            send(new FailedReport(
                FailureCode.InvalidSpec, string.Join(" ", result.Errors.Select(error => error.Message)), result.Errors[0].Path));
        }

        return result.Spec;
    }

    private static void Stop(PosixSignalContext signal, RunControl control)
    {
        signal.Cancel = !control.StopRequested;   // the second one ends the process
        control.RequestCheckpointAndStop();
    }

    private static void Obey(RunControl control, CancellationTokenSource cancellation)
    {
        while (Console.In.ReadLine() is { } command)
        {
            switch (command.Trim())
            {
                case "cancel":
                    cancellation.Cancel();
                    break;
                case "checkpoint-and-stop":
                    control.RequestCheckpointAndStop();
                    break;
                default:
                    Console.Error.WriteLine($"Unknown command '{command}'; known are cancel and checkpoint-and-stop.");
                    break;
            }
        }

        // The kernel closes the pipe however the supervisor ended. Its own signal for that, PR_SET_PDEATHSIG, is not used: it comes with
        // the end of the thread that started this process, and that was one of a pool, which ends idle threads while the worker lives on.
        // Nobody is left to read the reports or renew the lease. Kill, because an orderly exit would wait for libtorch's threads.
        System.Diagnostics.Process.GetCurrentProcess().Kill();
    }
}
