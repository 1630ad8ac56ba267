using System.Diagnostics;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training;

/// <summary>The training loop. It knows steps, not methods: objective, adapter and optimizer do what is particular.</summary>
public sealed class Trainer
{
    public required TrainingSpec Spec { get; init; }

    public required CausalLm Model { get; init; }

    public required Adapter Adapter { get; init; }

    public required FlatParameters Parameters { get; init; }

    public required Optimizer Optimizer { get; init; }

    public required StepPlan Plan { get; init; }

    /// <summary>Rows that are measured and not trained on; may be empty.</summary>
    public required IReadOnlyList<Example> Validation { get; init; }

    public required CheckpointStore Checkpoints { get; init; }

    /// <summary>Model card of the weights at a state, for the checkpoints.</summary>
    public required Func<CheckpointState, ModelCard> CardOf { get; init; }

    public required MetricsLog Metrics { get; init; }

    public required Action<Report> Report { get; init; }

    public required Device Device { get; init; }

    public int PadId { get; init; }

    /// <summary>Called after the evaluation of a step, with the steps taken. Called again when a stop cut it short.</summary>
    public Action<int, CancellationToken> AfterStep { get; init; } = (_, _) => { };

    /// <summary>Trains from <paramref name="state"/> to the end of the schedule, or until early stopping.</summary>
    /// <param name="state">Of no step, or of the checkpoint that the tensors were loaded from.</param>
    /// <returns>The state at the end; a checkpoint of it is saved.</returns>
    /// <exception cref="TrainingException">Loss or gradient stopped being finite.</exception>
    /// <exception cref="RunStoppedException">The run was asked to stop; a checkpoint of the last whole step is saved.</exception>
    /// <exception cref="OperationCanceledException">The run was cancelled.</exception>
    public CheckpointState Run(CheckpointState state, RunControl control, CancellationToken ct)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(ct, control.Stopping);
        using var ahead = new BatchesAhead(Plan);
        var (current, onDisk) = (state, state);
        try
        {
            Prepare(ref current, either.Token);
            Report(new PhaseReport("training"));
            Adapter.SetTraining(true);
            if (current.Unfinished)
            {
                Finish(ref current, ref onDisk, either.Token);
            }

            while (current.Step < Plan.TotalSteps && !current.Ended)
            {
                current = Take(current, ahead, either.Token);
                Finish(ref current, ref onDisk, either.Token);
            }

            return current;
        }
        catch (OperationCanceledException) when (control.StopRequested && !ct.IsCancellationRequested)
        {
            if (current.Step > 0 && !ReferenceEquals(current, onDisk))
            {
                Save(current with { Passing = true });
            }

            throw new RunStoppedException(current.Step);
        }
    }

    /// <summary>Measures the model before its first step.</summary>
    private void Prepare(ref CheckpointState state, CancellationToken ct)
    {
        if (state.Step == 0 && state.FirstEvaluation is null && Validation.Count > 0)
        {
            var measured = Evaluate(state, ct);
            state = measured with { FirstEvaluation = measured.LastEvaluation, BestLoss = null, BestStep = null };   // the base model is no checkpoint
        }
    }

    /// <summary>
    /// What follows on a step. <paramref name="state"/> is at every moment one from which the run can go on: what is not done yet is
    /// done at the resume.
    /// </summary>
    private void Finish(ref CheckpointState state, ref CheckpointState onDisk, CancellationToken ct)
    {
        var isLast = state.Step == Plan.TotalSteps;
        if (Validation.Count > 0 && state.EvaluatedAt != state.Step && (isLast || IsDue(Spec.Evaluation.EverySteps, state.Step)))
        {
            state = Evaluate(state, ct);
            Report(new PhaseReport("training"));   // checkpoints belong to it too
        }

        AfterStep(state.Step, ct);
        state = state with { Unfinished = false, Passing = false };
        if (isLast || state.Ended || state.BestStep == state.Step || IsDue(Spec.Checkpoints.EverySteps, state.Step))
        {
            Save(state);
            onDisk = state;
        }
    }

    private CheckpointState Take(CheckpointState state, BatchesAhead ahead, CancellationToken ct)
    {
        ct.ThrowIfCancellationRequested();
        var started = Stopwatch.GetTimestamp();
        var step = state.Step + 1;
        var rate = Spec.Optimizer.LearningRate * LearningRate.Factor(
            Spec.Schedule.LrScheduler, state.Step, LearningRate.WarmupSteps(Spec.Schedule, Plan.TotalSteps), Plan.TotalSteps);
        var (batches, planned, tokens) = ahead.Take(state.Step);

        Seed.Torch(Spec.Seed, step);
        var result = TrainingStep.Backward(Model, Adapter, Spec.Objective, Parameters, batches, Device, ct);
        if (!double.IsFinite(result.Loss) || !double.IsFinite(result.GradNorm))
        {
            throw new TrainingException(FailureCode.Diverged, Divergence(step, rate, result), "optimizer.learning_rate");
        }

        if (Spec.Schedule.MaxGradNorm is { } maximum)
        {
            Parameters.Clip(result.GradNorm, maximum);
        }

        Optimizer.Step(rate);
        Adapter.AfterStep(step);

        var begun = Plan.Position(state.Step);
        var (epoch, batch) = Plan.Position(step);
        state = state with
        {
            Step = step,
            Epoch = epoch,
            Batch = batch,
            TokensSeen = state.TokensSeen + tokens,
            TrainedTokens = state.TrainedTokens + batches.Sum(one => (long)one.TrainableTokens),
            Loss = result.Loss,
            Unfinished = true,
            Passing = false,
        };
        var report = new StepReport(
            step, Plan.TotalSteps, step / (double)Plan.StepsPerEpoch, result.Loss, rate, result.GradNorm,
            tokens / Stopwatch.GetElapsedTime(started).TotalSeconds, state.TokensSeen, state.TrainedTokens, Environment.WorkingSet,
            ObjectiveConfig.IsOfTokens(Spec.Objective) ? result.Accuracy : null, FiguresOf(result));
        Metrics.Order(step, begun.Epoch, begun.Batch, planned);
        Metrics.Step(report);
        Report(report);
        return state;
    }

    private CheckpointState Evaluate(CheckpointState state, CancellationToken ct)
    {
        Report(new PhaseReport("evaluating"));
        Adapter.SetTraining(false);
        var measured = Evaluation.Run(Model, Adapter, Spec.Objective, Validation, Spec.Schedule.BatchSize, PadId, Device, ct);
        Adapter.SetTraining(true);

        if (!double.IsFinite(measured.Loss))
        {
            throw new TrainingException(
                FailureCode.Diverged,
                $"The evaluation loss is {measured.Loss} at step {state.Step}: lower optimizer.learning_rate, or use precision float32.",
                "optimizer.learning_rate");
        }

        var values = new Dictionary<string, double>(measured.Named(Spec.Objective));
        Metrics.Evaluated(state.Step, measured, values);
        Report(new MetricReport(state.Step, values));
        var gained = measured.Loss < (state.BestLoss ?? double.PositiveInfinity);
        var without = gained ? 0 : state.EvaluationsWithoutGain + 1;
        return state with
        {
            EvaluatedAt = state.Step,
            LastEvaluation = measured,
            BestLoss = gained ? measured.Loss : state.BestLoss,
            BestStep = gained ? state.Step : state.BestStep,
            EvaluationsWithoutGain = without,
            Ended = without >= Spec.Evaluation.EarlyStoppingPatience,
        };
    }

    private void Save(CheckpointState state)
    {
        Metrics.Flush();
        Checkpoints.Save(state, Adapter, Optimizer, CardOf(state));
        var metrics = new Dictionary<string, double>();
        if (state.Loss is { } loss)
        {
            metrics["train/loss"] = loss;
        }

        if (state.EvaluatedAt == state.Step && state.LastEvaluation is { } evaluation)
        {
            foreach (var (name, value) in evaluation.Named(Spec.Objective))
            {
                metrics[name] = value;
            }
        }

        var path = "checkpoints/" + Path.GetFileName(Checkpoints.FolderOf(state.Step));
        Report(new CheckpointReport(state.Step, path, state.BestStep == state.Step, metrics));
    }

    /// <summary>What an objective measures besides loss and tokens, by its public names.</summary>
    private Dictionary<string, double>? FiguresOf(StepResult result) => ObjectiveConfig.IsOfTokens(Spec.Objective)
        ? null
        : new(Spec.Objective.Named("train/", result.Accuracy, result.Figures));

    /// <summary>Whether something that happens every so many steps, or else after each epoch, happens after this step.</summary>
    private bool IsDue(int? everySteps, int step) => everySteps is { } every ? step % every == 0 : Plan.EndsEpoch(step);

    private string Divergence(int step, double rate, StepResult result)
    {
        var what = double.IsFinite(result.Loss) ? $"gradient norm became {result.GradNorm}" : $"loss became {result.Loss}";
        var clip = Spec.Schedule.MaxGradNorm is null ? ", set schedule.max_grad_norm to 1" : "";
        return FormattableString.Invariant(
            $"The {what} at step {step}, where the learning rate was {rate:G3}: lower optimizer.learning_rate (now {Spec.Optimizer.LearningRate:G3}){clip} or lengthen schedule.warmup_ratio.");
    }
}
