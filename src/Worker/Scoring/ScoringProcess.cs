using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json;
using TrainingService.Worker.Supervision;

namespace TrainingService.Worker.Scoring;

/// <summary>The scoring process has ended before it answered.</summary>
internal sealed class ScoringEndedException(string message) : IOException(message);

/// <summary>A process that runs <c>serve-scores</c>. It gets no secret, and ends with the process that started it.</summary>
internal sealed class ScoringProcess : IDisposable
{
    private readonly Process _process;
    private readonly ConcurrentDictionary<long, TaskCompletionSource<ScoreReply>> _waiting = [];
    private readonly SemaphoreSlim _writing = new(1);
    private volatile bool _ended;

    private ScoringProcess(Process process) => _process = process;

    public static ScoringProcess Start(WorkerPaths paths, ScoresOptions options, Action<string> onLog)
    {
        Directory.CreateDirectory(paths.Root);
        var start = TrainingProcess.StartInfo(
            paths.Executable, paths.Allocator, paths.Root, ["serve-scores", "--memory-bytes", options.MemoryBytes.ToString(CultureInfo.InvariantCulture)]);
        start.StandardInputEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
        if (options.CudaDevice is { } device)
        {
            start.Environment["CUDA_VISIBLE_DEVICES"] = device;
        }

        var started = new ScoringProcess(Process.Start(start) ?? throw new IOException("The scoring process did not start."));
        _ = started.LogAsync(onLog);
        _ = started.ReadAsync(onLog);
        return started;
    }

    /// <exception cref="ScoringEndedException">The process has ended.</exception>
    public async Task<ScoreReply> AskAsync(ScoreCall call, CancellationToken cancellationToken)
    {
        var line = JsonSerializer.Serialize(call, ScoreMessages.Json);
        var answer = new TaskCompletionSource<ScoreReply>(TaskCreationOptions.RunContinuationsAsynchronously);
        _waiting[call.Id] = answer;
        try
        {
            await _writing.WaitAsync(cancellationToken);
            try
            {
                // A line is written as a whole or the process is of no use any more, so the caller's end does not cut it.
                await _process.StandardInput.WriteLineAsync(line);
                await _process.StandardInput.FlushAsync(CancellationToken.None);
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException)
            {
                throw Ended();   // the pipe is broken
            }
            finally
            {
                _writing.Release();
            }

            if (_ended)
            {
                throw Ended();   // its end came between the two
            }

            return await answer.Task.WaitAsync(cancellationToken);
        }
        finally
        {
            _waiting.TryRemove(call.Id, out _);
        }
    }

    /// <summary>Ends the process.</summary>
    public void Dispose()
    {
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
        }
    }

    private async Task ReadAsync(Action<string> onLog)
    {
        try
        {
            while (await _process.StandardOutput.ReadLineAsync() is { } line)
            {
                if (!line.StartsWith("{\"id\"", StringComparison.Ordinal))
                {
                    onLog(line);   // what a native library prints
                }
                else if (JsonSerializer.Deserialize<ScoreReply>(line, ScoreMessages.Json) is { } reply && _waiting.TryRemove(reply.Id, out var waiting))
                {
                    waiting.TrySetResult(reply);
                }
            }
        }
        catch (Exception e) when (e is JsonException or IOException or InvalidOperationException)
        {
            onLog($"The scoring process is ended, since its replies cannot be read: {e.Message}");
        }
        finally
        {
            _ended = true;
            foreach (var waiting in _waiting.Values)
            {
                waiting.TrySetException(Ended());
            }

            Dispose();   // one that closed its output is of no use
            await _process.WaitForExitAsync();
            onLog($"The scoring process has ended with code {_process.ExitCode}.");
        }
    }

    private async Task LogAsync(Action<string> onLog)
    {
        while (await _process.StandardError.ReadLineAsync() is { } line)
        {
            onLog(line);
        }
    }

    private static ScoringEndedException Ended() => new("The process that scores has ended.");
}
