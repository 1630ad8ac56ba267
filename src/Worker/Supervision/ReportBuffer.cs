using System.Globalization;
using System.Text.Json;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Training;
using TrainingService.Training.Throughput;

namespace TrainingService.Worker.Supervision;

/// <summary>Gathers reports between two writes: a run that takes a thousand steps a second makes four transactions of them.</summary>
internal sealed class ReportBuffer(Func<DateTimeOffset> now)
{
    private static readonly TimeSpan NoteEvery = TimeSpan.FromSeconds(5);

    private readonly Lock _gate = new();
    private readonly List<EventLine> _events = [];
    private readonly List<MetricLine> _metrics = [];
    private StepReport? _step;
    private string? _phase;
    private bool _estimated;
    private DateTimeOffset _noted;
    private bool _touched;
    private long _added;
    private long _taken;
    private long _stored;
    private TaskCompletionSource _storing = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>How fast earlier runs went; the estimate of this one's time follows from it.</summary>
    public Pace Pace { get; set; } = Pace.Unknown;

    /// <summary>What the run should take; null before its rows are read.</summary>
    public RunCost? Estimate { get; private set; }

    /// <summary>The log of the training process; null before it starts.</summary>
    public LogTail? Log { get; set; }

    public void Add(Report report)
    {
        var time = now();
        lock (_gate)
        {
            switch (report)
            {
                case StepReport step:
                    _step = step;
                    _metrics.Add(new MetricLine(step.Step, "train", Json(step.Named()), time));
                    break;
                case MetricReport metric:
                    _metrics.Add(new MetricLine(metric.Step, "eval", Json(metric.Values), time));
                    _events.Add(EvaluationEvent(metric, time));
                    break;
                case PhaseReport phase:
                    _phase = phase.Phase;
                    _events.Add(new EventLine(EventLevel.Info, JobEvent.MessageType, $"Phase: {phase.Phase}.", null, time));
                    break;
                case ProgressReport when time - _noted < NoteEvery:
                    _touched = true;   // the job is alive, and its story does not grow with every look
                    return;
                case ProgressReport progress:
                    _noted = time;
                    _events.Add(new EventLine(EventLevel.Info, JobEvent.MessageType, MessageOf(progress), DataOf(progress), time));
                    break;
                case WarningReport warning:
                    _events.Add(new EventLine(EventLevel.Warn, JobEvent.MessageType, Clean(warning.Message), null, time));
                    break;
                case EstimateReport estimate:
                    Estimate = Pace.Timed(estimate.Cost);
                    _estimated = true;
                    break;
                case CheckpointReport or DoneReport or FailedReport:
                    return;   // these move files or end the run; the attempt sees to them
                default:
                    throw new ArgumentOutOfRangeException(nameof(report), report.GetType().Name, "Not a report that a worker knows.");
            }

            _added++;
        }
    }

    /// <summary>Something moves that is no report, such as the bytes of an upload: the job is alive.</summary>
    public void Touch() => _touched = true;

    public void Add(DownloadProgress progress)
    {
        var data = Json(new Dictionary<string, double?> { ["downloaded_bytes"] = progress.Bytes, ["total_bytes"] = progress.TotalBytes });
        lock (_gate)
        {
            _events.Add(new EventLine(EventLevel.Info, JobEvent.MessageType, progress.Message, data, now()));
            _added++;
        }
    }

    /// <summary>Everything since the last call; null when there was nothing.</summary>
    public ProgressBatch? Take()
    {
        lock (_gate)
        {
            if (!_touched && !_estimated && _step is null && _phase is null && _events.Count == 0 && _metrics.Count == 0)
            {
                return null;
            }

            if (_step is { } last)
            {
                _events.Add(StepEvent(last, now()));
            }

            var batch = new ProgressBatch
            {
                Phase = _phase,
                Step = _step?.Step,
                TotalSteps = _step?.TotalSteps,
                TrainedTokens = _step?.TrainedTokens,
                EstimatedCostJson = _estimated && Estimate is { } cost ? Pace.Write(cost) : null,
                Events = [.. _events],
                Metrics = [.. _metrics],
            };
            _events.Clear();
            _metrics.Clear();
            _step = null;
            _phase = null;
            _estimated = false;
            _touched = false;
            _taken = _added;
            return batch;
        }
    }

    /// <summary>What was taken last is in the database, or never will be.</summary>
    public void MarkStored()
    {
        lock (_gate)
        {
            _stored = _taken;
            _storing.SetResult();
            _storing = new(TaskCreationOptions.RunContinuationsAsynchronously);
        }
    }

    /// <summary>Waits until everything that has been added by now is in the database.</summary>
    public async Task StoredAsync(CancellationToken cancellationToken)
    {
        long wanted;
        lock (_gate)
        {
            wanted = _added;
        }

        while (true)
        {
            Task next;
            lock (_gate)
            {
                if (_stored >= wanted)
                {
                    return;
                }

                next = _storing.Task;
            }

            await next.WaitAsync(cancellationToken);
        }
    }

    private static string MessageOf(ProgressReport progress) => progress.Unit switch
    {
        ProgressUnit.Bytes => string.Create(
            CultureInfo.InvariantCulture, $"Phase {progress.Phase}: {progress.Done / 1e6:0.0} of {progress.Total / 1e6:0.0} MB."),
        ProgressUnit.Rows => string.Create(CultureInfo.InvariantCulture, $"Phase {progress.Phase}: {progress.Done} of {progress.Total} rows."),
    };

    private static string DataOf(ProgressReport progress)
    {
        var unit = progress.Unit switch { ProgressUnit.Bytes => "bytes", ProgressUnit.Rows => "rows" };
        return Json(new Dictionary<string, double?> { [$"read_{unit}"] = progress.Done, [$"total_{unit}"] = progress.Total });
    }

    /// <summary>The newest step of a batch stands for all of it in the job's story; every step is among the metrics.</summary>
    private static EventLine StepEvent(StepReport step, DateTimeOffset now) => new(
        EventLevel.Info,
        JobEvent.MetricsType,
        FormattableString.Invariant($"Step {step.Step}/{step.TotalSteps}: training loss={step.Loss:F4}"),
        Json(new Dictionary<string, double?>
        {
            ["step"] = step.Step,
            ["total_steps"] = step.TotalSteps,
            ["train_loss"] = step.Loss,
            ["train_mean_token_accuracy"] = step.TokenAccuracy ?? step.Accuracy,
            ["learning_rate"] = step.LearningRate,
            ["grad_norm"] = step.GradNorm,
            ["tokens_per_second"] = step.TokensPerSecond,
        }),
        now);

    private static EventLine EvaluationEvent(MetricReport metric, DateTimeOffset now)
    {
        var data = new Dictionary<string, double?> { ["step"] = metric.Step };
        foreach (var (name, value) in metric.Values)
        {
            data[name switch { "eval/loss" => "valid_loss", "eval/token_accuracy" => "valid_mean_token_accuracy", _ => name }] = value;
        }

        return new EventLine(
            EventLevel.Info, JobEvent.MetricsType, FormattableString.Invariant($"Step {metric.Step}: evaluated"), Json(data), now);
    }

    private static string Json(IReadOnlyDictionary<string, double> values) =>
        Json(values.ToDictionary(pair => pair.Key, pair => (double?)pair.Value));

    /// <summary>Postgres takes no zero characters in text.</summary>
    private static string Clean(string text) => text.Replace("\0", "", StringComparison.Ordinal);

    /// <summary>JSON has no infinity; what is not a number becomes null.</summary>
    private static string Json(Dictionary<string, double?> values) => JsonSerializer.Serialize(
        values.ToDictionary(pair => pair.Key, pair => pair.Value is { } value && double.IsFinite(value) ? pair.Value : null));
}
