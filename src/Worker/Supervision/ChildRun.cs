using System.Threading.Channels;
using Microsoft.Extensions.Options;
using TrainingService.Domain.Jobs;
using TrainingService.Training;

namespace TrainingService.Worker.Supervision;

/// <summary>How a training process ended.</summary>
/// <param name="Failure">Null: it is done, or was stopped before its end.</param>
/// <param name="Done">Null: it failed or was stopped.</param>
/// <param name="LastStep">The last step that it reported; zero: none.</param>
internal sealed record ChildEnd(JobFailure? Failure, DoneReport? Done, int LastStep);

/// <summary>Runs the training process of an attempt, passes stop requests on to it, and kills it when it does not obey.</summary>
internal sealed class ChildRun(WorkerPaths paths, DeviceSlots devices, KernelKills kernel, IOptions<WorkerOptions> options, TimeProvider clock)
{
    /// <summary>How long an attempt has for saving and storing a checkpoint, counted from the first request to end.</summary>
    public static TimeSpan GraceOf(StopReason reason, WorkerOptions options) => TimeSpan.FromSeconds(reason switch
    {
        StopReason.Shutdown => options.ShutdownGraceSeconds,
        StopReason.Paused or StopReason.Deadline => options.PauseGraceSeconds,
        StopReason.Cancelled => options.CancelGraceSeconds,
        StopReason.LeaseLost or StopReason.None => 0,
    });

    public async Task<ChildEnd> RunAsync(
        PreparedJob prepared, string work, ReportBuffer reports, CheckpointUploads checkpoints, StopRequest stop)
    {
        var specFile = Path.Combine(work, ".spec.json");
        await File.WriteAllTextAsync(specFile, SpecJson.Serialize(prepared.Local), stop.Token);
        using var log = new LogTail(Path.Combine(work, ArtifactUploads.LogPath));
        reports.Log = log;
        DoneReport? done = null;
        FailedReport? failed = null;
        var step = 0;
        int exitCode;
        bool stopped;
        var killedBefore = kernel.Read();
        using var slot = devices.Take();
        using (var process = TrainingProcess.Start(paths.Executable, paths.Allocator, specFile, work, paths.Cache, prepared.ModelName, slot.Device))
        {
            using var ended = new CancellationTokenSource();
            var obeying = ObeyAsync(process, stop, ended.Token);
            exitCode = await process.ReadAsync(
                report =>
                {
                    reports.Add(report);
                    switch (report)
                    {
                        case StepReport taken:
                            step = taken.Step;
                            break;
                        case CheckpointReport checkpoint:
                            checkpoints.Add(checkpoint);
                            break;
                        case DoneReport last:
                            done = last;
                            break;
                        case FailedReport last:
                            failed = last;
                            break;
                        default:
                            break;
                    }
                },
                log.Add);
            await ended.CancelAsync();
            await obeying;
            stopped = done is null && failed is null && stop.Reason != StopReason.None;
        }

        var kernelKilled = kernel.Read() > killedBefore;
        return stopped
            ? new ChildEnd(null, null, step)
            : new ChildEnd(AttemptEnd.FailureOf(exitCode, kernelKilled, done, failed, log.Read(), work), done, step);
    }

    private async Task ObeyAsync(TrainingProcess process, StopRequest stop, CancellationToken ended)
    {
        using var grace = new StopGrace(stop, reason => GraceOf(reason, options.Value), clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(grace.Token, ended);
        var reasons = Channel.CreateUnbounded<StopReason>();
        stop.Listen(reason => reasons.Writer.TryWrite(reason));
        try
        {
            await foreach (var reason in reasons.Reader.ReadAllAsync(either.Token))
            {
                await process.SendAsync(reason is StopReason.Cancelled or StopReason.LeaseLost ? "cancel" : "checkpoint-and-stop");
            }
        }
        catch (OperationCanceledException) when (either.IsCancellationRequested)
        {
            if (!ended.IsCancellationRequested)
            {
                process.Kill();
            }
        }
    }
}
