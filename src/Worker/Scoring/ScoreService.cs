using System.Collections.Concurrent;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using TrainingService.Training;
using TrainingService.Training.Scoring;
using TrainingService.Worker.Supervision;

namespace TrainingService.Worker.Scoring;

/// <summary>A model that scores: the result of a job, or a registered model with a score head.</summary>
public sealed record ScoredModel(Guid ProjectId, Guid? Job, Guid? BaseModel);

/// <summary>The scores were refused, or could not be had.</summary>
/// <param name="code">Stable, for programs: <c>invalid_input</c>, <c>invalid_model</c>, <c>model_too_large</c>, <c>out_of_memory</c>, <c>too_many_scores</c>,
/// <c>scores_unavailable</c>, <c>internal</c>.</param>
public sealed class ScoreException(string code, string message, string? param = null, Exception? inner = null) : Exception(message, inner)
{
    public string Code { get; } = code;

    public string? Param { get; } = param;
}

/// <summary>Scores by a process of its own, which is started when the first ones are asked for and anew when it has ended.</summary>
public sealed partial class ScoreService(IServiceProvider services, IOptions<ScoresOptions> options, TimeProvider clock, ILogger<ScoreService> logger) : IDisposable
{
    /// <summary>A call that met the end of its process is asked once more; one that ends processes is not asked for ever.</summary>
    private const int Tries = 2;

    private readonly Lock _gate = new();
    private readonly ConcurrentDictionary<ScoredModel, SemaphoreSlim> _fetching = [];
    private ScoringProcess? _process;
    private bool _disposed;
    private long _calls;
    private int _inWork;

    /// <summary>Scores of every answer of some rows.</summary>
    /// <param name="input">Rows; see <see cref="ScoreInput"/>.</param>
    /// <exception cref="ScoreException">There are none; it says why.</exception>
    public async Task<IReadOnlyList<IReadOnlyList<AnswerScore>>> ScoreAsync(
        ScoredModel model, IReadOnlyList<JsonElement> input, CancellationToken cancellationToken)
    {
        if (Interlocked.Increment(ref _inWork) > options.Value.MostWaiting)
        {
            Interlocked.Decrement(ref _inWork);
            throw new ScoreException("too_many_scores", "Too many requests wait for scores at the moment; try again in a while (setting Scores:MostWaiting).");
        }

        try
        {
            var paths = Paths();
            using var use = new CacheUse(services.GetRequiredService<CacheEntries>());
            var source = await FetchAsync(model, use, cancellationToken);
            var reply = await AskAsync(paths, source, input, cancellationToken);
            return reply.Scores ?? throw new ScoreException(reply.Error!.Code, reply.Error.Message, reply.Error.Param);
        }
        catch (TrainingException gone)
        {
            throw new ScoreException("invalid_model", gone.Message, "model", gone);   // its files, or those of its base, are not to be had
        }
        catch (DamagedFileException damaged)
        {
            throw new ScoreException("scores_unavailable", "The model's files in the artifact store are damaged; the operator's log has the details.", "model", damaged);
        }
        finally
        {
            Interlocked.Decrement(ref _inWork);
        }
    }

    private WorkerPaths Paths()
    {
        try
        {
            return services.GetRequiredService<WorkerPaths>();
        }
        catch (InvalidOperationException missing)
        {
            throw new ScoreException(
                "scores_unavailable", "This API was installed without the program that runs models; install it beside it, or set Worker:Executable.", null, missing);
        }
    }

    /// <summary>The model's files on this machine. Of several callers one fetches them.</summary>
    private async Task<ScorerSource> FetchAsync(ScoredModel model, CacheUse use, CancellationToken cancellationToken)
    {
        var inputs = services.GetRequiredService<JobInputs>();
        var isNew = !_fetching.ContainsKey(model);
        var gate = _fetching.GetOrAdd(model, _ => new(1));
        await gate.WaitAsync(cancellationToken);
        try
        {
            var source = await inputs.ScorerAsync(model, new ReportBuffer(clock.GetUtcNow), use, cancellationToken);
            if (isNew)
            {
                await services.GetRequiredService<CacheEntries>().MakeRoomAsync(all: false, cancellationToken);
            }

            return source;
        }
        finally
        {
            gate.Release();
        }
    }

    private async Task<ScoreReply> AskAsync(WorkerPaths paths, ScorerSource source, IReadOnlyList<JsonElement> input, CancellationToken cancellationToken)
    {
        for (var attempt = 1; ; attempt++)
        {
            var process = Process(paths);
            try
            {
                return await process.AskAsync(
                    new ScoreCall(Interlocked.Increment(ref _calls), source.Model, source.Adapter, input), cancellationToken);
            }
            catch (ScoringEndedException) when (attempt < Tries)
            {
                Replace(process);
            }
            catch (ScoringEndedException ended)
            {
                throw new ScoreException("scores_unavailable", "The process that scores ended while it had this request; try again in a while.", null, ended);
            }
        }
    }

    private ScoringProcess Process(WorkerPaths paths)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (_process is null)
            {
                _process = ScoringProcess.Start(paths, options.Value, Log);
                Started();
            }

            return _process;
        }
    }

    /// <summary>Gives up a process that has ended, once: those who ask next start another one.</summary>
    private void Replace(ScoringProcess ended)
    {
        lock (_gate)
        {
            if (_process == ended)
            {
                ended.Dispose();
                _process = null;
                Ended();
            }
        }
    }

    public void Dispose()
    {
        lock (_gate)
        {
            _disposed = true;
            _process?.Dispose();
        }
    }

    [LoggerMessage(90, LogLevel.Information, "The process that scores was started")]
    private partial void Started();

    [LoggerMessage(91, LogLevel.Warning, "The process that scores has ended; another one is started")]
    private partial void Ended();

    [LoggerMessage(92, LogLevel.Information, "Scores: {Line}")]
    private partial void Log(string line);
}
