using System.Text.Json.Serialization;
using TrainingService.Training.Throughput;

namespace TrainingService.Training;

/// <summary>One line of a training process's standard output. The supervisor and the command line read the same lines.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(StepReport), "step")]
[JsonDerivedType(typeof(MetricReport), "metric")]
[JsonDerivedType(typeof(CheckpointReport), "checkpoint")]
[JsonDerivedType(typeof(EstimateReport), "estimate")]
[JsonDerivedType(typeof(PhaseReport), "phase")]
[JsonDerivedType(typeof(ProgressReport), "progress")]
[JsonDerivedType(typeof(WarningReport), "warning")]
[JsonDerivedType(typeof(DoneReport), "done")]
[JsonDerivedType(typeof(FailedReport), "failed")]
public abstract record Report;

/// <summary>One optimizer step.</summary>
/// <param name="Step">One-based number of the step just taken.</param>
/// <param name="Loss">Mean over the step's trainable tokens, or pairs of answers, before the update, nats.</param>
/// <param name="GradNorm">Global L2 norm of the gradient before clipping.</param>
/// <param name="TokensPerSecond">Tokens of the step, padding left out, over its wall time.</param>
/// <param name="TokensSeen">Tokens since the start of the run, padding left out.</param>
/// <param name="TrainedTokens">Of those, the ones that carried loss.</param>
/// <param name="MemoryBytes">Resident memory of the process.</param>
/// <param name="TokenAccuracy">Share of the step's trainable tokens that were the most likely one, before the update; null when the objective judges answers.</param>
/// <param name="Figures">What the objective measured besides, such as <c>train/accuracy</c>; null: nothing.</param>
public sealed record StepReport(
    int Step, int TotalSteps, double Epoch, double Loss, double LearningRate, double GradNorm, double TokensPerSecond,
    long TokensSeen, long TrainedTokens, long MemoryBytes, double? TokenAccuracy = null, IReadOnlyDictionary<string, double>? Figures = null) : Report
{
    /// <summary>Share of the answers that were judged right; null when the objective knows no right and wrong.</summary>
    [JsonIgnore]
    public double? Accuracy => Figures is { } figures && (figures.TryGetValue("train/accuracy", out var share) || figures.TryGetValue("train/rewards/accuracies", out share))
        ? share
        : null;

    /// <summary>All figures by their public names, the same in files, events and the API.</summary>
    public Dictionary<string, double> Named()
    {
        var values = new Dictionary<string, double>
        {
            ["train/loss"] = Loss,
            ["learning_rate"] = LearningRate,
            ["grad_norm"] = GradNorm,
            ["tokens_per_second"] = TokensPerSecond,
            ["tokens_seen"] = TokensSeen,
            ["trained_tokens"] = TrainedTokens,
            ["memory_bytes"] = MemoryBytes,
            ["epoch"] = Epoch,
        };
        if (TokenAccuracy is { } accuracy)
        {
            values["train/token_accuracy"] = accuracy;
        }

        foreach (var (name, value) in Figures ?? new Dictionary<string, double>())
        {
            values[name] = value;
        }

        return values;
    }
}

/// <summary>Figures measured at a step, such as <c>eval/loss</c> and <c>eval/token_accuracy</c>.</summary>
public sealed record MetricReport(int Step, IReadOnlyDictionary<string, double> Values) : Report;

/// <summary>A checkpoint that is complete on disk.</summary>
/// <param name="Path">Folder below the work folder.</param>
/// <param name="Best">Whether its evaluation loss is the lowest so far.</param>
public sealed record CheckpointReport(int Step, string Path, bool Best, IReadOnlyDictionary<string, double> Metrics) : Report;

/// <summary>What the run should take, once its rows are known; the time is left to those who know earlier runs.</summary>
public sealed record EstimateReport(RunCost Cost) : Report;

/// <summary>What the process is busy with: <c>tokenizing</c>, <c>calibrating</c>, <c>reference</c>, <c>training</c>, <c>evaluating</c>, <c>analysing</c>, <c>exporting</c>.</summary>
public sealed record PhaseReport(string Phase) : Report;

/// <summary>How far a phase is that knows it.</summary>
/// <param name="Done">How many are done.</param>
/// <param name="Total">How many there are in all.</param>
public sealed record ProgressReport(string Phase, long Done, long Total, ProgressUnit Unit = ProgressUnit.Bytes) : Report;

/// <summary>What a phase counts.</summary>
public enum ProgressUnit
{
    Bytes,
    Rows,
}

/// <summary>Something that its owner should know, and that does not stop the run.</summary>
public sealed record WarningReport(string Message) : Report;

/// <summary>The run is complete and its <c>manifest.json</c> is written.</summary>
/// <param name="Usage">What this process took; the processes of earlier attempts took theirs.</param>
public sealed record DoneReport(
    int Steps, long TrainedTokens, IReadOnlyDictionary<string, double> Metrics, RunUsage? Usage = null) : Report;

/// <summary>The run ended without a result.</summary>
/// <param name="Param">JSON path of the spec member, or file and row, that is at fault.</param>
public sealed record FailedReport(FailureCode Code, string Message, string? Param) : Report;
