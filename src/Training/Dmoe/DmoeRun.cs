using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Dmoe;

/// <summary>The phases of a run of <see cref="DmoeRewardConfig"/>: the router, then for each category what its experts start from, the experts, and what joins them.</summary>
/// <remarks>
/// <para>Each phase but the joining is a <see cref="TrainingRun"/> of its own with the rows, the head and the learning rate of the phase, in a hidden folder below the
/// work folder. Steps are counted through. A checkpoint of the whole run holds the results of the phases that are over and the checkpoint of the one at work, and alone
/// decides from where the run goes on.</para>
/// <para>Deviation: what the experts start from is an adapter, too, in place of a whole model of its own for each category, so that everything that is saved stands
/// beside one base model; and batches are of pairs, not of all pairs of one prompt.</para>
/// </remarks>
internal sealed class DmoeRun(
    TrainingSpec spec, DmoeRewardConfig objective, string work, Action<Report> report, RunControl control, string? baseModelName, string cacheFolder,
    CancellationToken ct, CancellationToken either)
{
    private readonly Dictionary<string, double> _results = [];
    private readonly HashSet<string> _warnings = [];
    private readonly DmoeCheckpoints _checkpoints = new(work, spec.Checkpoints.Keep);
    private long _trainedTokens;
    private int _saved;
    private bool _estimated;

    private string Done => Path.Combine(work, DmoeCheckpoints.Done);

    private string Phase => Path.Combine(work, DmoeCheckpoints.Phase);

    /// <summary>The result, under the name that results of adapters have.</summary>
    private string Result => Path.Combine(work, "adapter");

    /// <param name="data">All rows.</param>
    /// <param name="identity">Of spec and rows.</param>
    public DoneReport Execute(PreparedData data, string identity)
    {
        _warnings.UnionWith(data.Report.Warnings);
        try
        {
            return Run(data, identity);
        }
        catch (Exception e) when (e is RunStoppedException || (e is OperationCanceledException && control.StopRequested && !ct.IsCancellationRequested))
        {
            throw new RunStoppedException(_saved);   // in steps of the whole run
        }
    }

    private DoneReport Run(PreparedData data, string identity)
    {
        var phases = Plan(data);
        var total = phases.Sum(phase => phase.Steps);
        var start = _checkpoints.Restore(identity, message => report(new WarningReport(message)), either);
        foreach (var (name, value) in start.Results)
        {
            _results[name] = value;
        }

        (_trainedTokens, _saved) = (start.TrainedTokens, start.Step);
        using (var metrics = new MetricsLog(Path.Combine(work, "metrics"), start.Step > 0 ? start.Step : null))
        {
            for (var index = start.Phase; index < phases.Count; index++)
            {
                either.ThrowIfCancellationRequested();
                var (phase, steps) = phases[index];
                var before = phases.Take(index).Sum(earlier => earlier.Steps);
                var state = new DmoeState { Run = identity, Phase = index };
                report(new PhaseReport(phase.Path));
                if (phase.Stage == DmoeStage.Aggregation)
                {
                    Aggregate(phase, data, steps, before, total, metrics);
                }
                else
                {
                    Train(phase, before, total, state, metrics);
                }

                if (Directory.Exists(Phase))
                {
                    Directory.Delete(Phase, recursive: true);
                }

                Save(state with { Phase = index + 1, Step = before + steps }, metrics);
            }
        }

        report(new PhaseReport("evaluating"));
        Publish(phases);
        Evaluate(data);
        return new(total, _trainedTokens, _results);
    }

    /// <summary>Every phase and its steps, after the rows were found to be enough.</summary>
    private List<(DmoePhase Phase, int Steps)> Plan(PreparedData data)
    {
        foreach (var (split, row) in data.Train.Select(row => ("train", row)).Concat(data.Validation.Select(row => ("validation", row))))
        {
            either.ThrowIfCancellationRequested();
            Known(split, row.Row, "category", row.Category, objective.Categories, "objective.categories");
            if (row.Capability is { } capability)
            {
                Known(split, row.Row, "capability", capability, objective.Capabilities, "objective.capabilities");
            }
        }

        List<DmoePhase> phases = [];
        if (objective.Categories.Count > 1)
        {
            phases.Add(new(DmoeStage.Router));
        }

        foreach (var category in objective.Categories)
        {
            var named = data.Train.Where(row => row.Category == category && row.Capability is not null).Select(row => row.Capability!).ToHashSet();
            if (named.Count == 0)
            {
                throw TrainingException.InvalidData($"No training row of category '{category}' is of a capability, so it has no expert; give rows with capability or labels.", "data.train");
            }

            if (objective.BaseShare > 0)
            {
                phases.Add(new(DmoeStage.Base, category));
            }

            phases.AddRange(objective.Capabilities.Where(named.Contains).Select(capability => new DmoePhase(DmoeStage.Expert, category, capability)));
            phases.Add(new(DmoeStage.Aggregation, category));
        }

        return phases.ConvertAll(phase => (phase, StepsOf(phase, data).TotalSteps));
    }

    private StepPlan StepsOf(DmoePhase phase, PreparedData data)
    {
        var rows = phase.RowsOf(data.Train, objective.BaseShare, isTraining: true);
        return rows.Count > 0
            ? new(BatchPlan.ForTraining(rows, spec.Data, objective.Use, spec.Schedule.BatchSize, padId: 0, spec.Seed), SpecOf(phase).Schedule)
            : throw TrainingException.InvalidData(
                $"Phase {phase.Path} has no training row: a category needs whole comparisons, without capability, beside those by capability; give more rows, or another objective.base_share.",
                "data.train");
    }

    private static void Known(string split, int row, string column, string? value, IReadOnlyList<string> known, string member)
    {
        if (value is null || !known.Contains(value))
        {
            throw TrainingException.InvalidData(
                $"data.{split} row {row}, {column}: is {(value is null ? "missing" : $"'{value}'")}, and {member} names {string.Join(", ", known.Select(name => $"'{name}'"))}; correct the row, or add it there.",
                $"data.{split}:{row}");
        }
    }

    /// <summary>The spec of one phase.</summary>
    private TrainingSpec SpecOf(DmoePhase phase) => spec with
    {
        Objective = objective with { Phase = phase },
        Adapter = phase.Stage == DmoeStage.Expert && objective.BaseShare > 0
            ? spec.Adapter with { From = Path.Combine(Done, new DmoePhase(DmoeStage.Base, phase.Category).Path) }
            : phase.Stage == DmoeStage.Router ? spec.Adapter with { From = null }   // whose head has other outputs
            : spec.Adapter,
        Optimizer = spec.Optimizer with
        {
            LearningRate = phase.Stage switch
            {
                DmoeStage.Router => objective.RouterLearningRate,
                DmoeStage.Base => objective.BaseLearningRate,
                DmoeStage.Expert => null,
                DmoeStage.Aggregation => objective.AggregationLearningRate,
            } ?? spec.Optimizer.LearningRate,
            LoraPlusRatio = phase.Stage == DmoeStage.Aggregation ? null : spec.Optimizer.LoraPlusRatio,
        },
        Schedule = phase.Stage == DmoeStage.Aggregation && objective.AggregationEpochs is { } epochs
            ? spec.Schedule with { Epochs = epochs, MaxSteps = null, WarmupSteps = null }
            : spec.Schedule,
        Spectra = new() { Enabled = false },
    };

    private void Train(DmoePhase phase, int before, int total, DmoeState state, MetricsLog metrics)
    {
        var done = TrainingRun.Execute(
            SpecOf(phase), Phase, line => Hand(line, phase, before, total, state, metrics), control, ct, baseModelName, cacheFolder);
        _trainedTokens += done.TrainedTokens;
        foreach (var (name, value) in done.Metrics.Where(metric => metric.Key is "train/loss" or "eval/loss" or "eval/accuracy"))
        {
            _results[$"{phase.Path}/{name}"] = value;
        }

        DmoeCheckpoints.Copy(Path.Combine(Phase, "adapter"), Path.Combine(Done, phase.Path));
    }

    /// <summary>Passes on what a phase reports, in the steps and names of the whole run.</summary>
    private void Hand(Report line, DmoePhase phase, int before, int total, DmoeState state, MetricsLog metrics)
    {
        switch (line)
        {
            case StepReport step:
                Step(step with { Step = before + step.Step, TotalSteps = total, TrainedTokens = _trainedTokens + step.TrainedTokens }, metrics);
                break;
            case MetricReport metric:
                report(new MetricReport(before + metric.Step, metric.Values.ToDictionary(value => $"{phase.Path}/{value.Key}", value => value.Value)));
                break;
            case CheckpointReport checkpoint:
                Save(state with { Step = before + checkpoint.Step, PhaseStep = checkpoint.Step }, metrics);
                break;
            case EstimateReport estimate when !_estimated:
                _estimated = true;
                report(new EstimateReport(estimate.Cost with { Steps = total }));
                break;
            case ProgressReport:
                report(line);
                break;
            case WarningReport warning when _warnings.Add(warning.Message):
                report(warning);
                break;
            default:
                break;   // phases within a phase
        }
    }

    private void Step(StepReport step, MetricsLog metrics)
    {
        metrics.Step(step);
        report(step);
    }

    private void Save(DmoeState state, MetricsLog metrics)
    {
        metrics.Flush();
        var path = _checkpoints.Save(state with { Results = new(_results), TrainedTokens = _trainedTokens });
        _saved = state.Step;
        report(new CheckpointReport(state.Step, path, Best: false, new Dictionary<string, double>()));
    }

    /// <summary>Trains what joins a category's experts, on their hidden states, which are computed once. A stop starts it anew: it is the shortest of the phases.</summary>
    private void Aggregate(DmoePhase phase, PreparedData data, int steps, int before, int total, MetricsLog metrics)
    {
        var experts = Directory.GetDirectories(Path.Combine(Done, "experts", phase.Category!)).OrderBy(Order).ToList();
        var rows = phase.RowsOf(data.Train, objective.BaseShare, isTraining: true);
        var held = phase.RowsOf(data.Validation, objective.BaseShare, isTraining: false);
        using var scope = NewDisposeScope();
        using var body = Load(new ScoreHead());
        var sequences = rows.Concat(held).SelectMany(Sequences).ToList();
        var all = (long)sequences.Count * experts.Count;
        var z = DmoeExperts.HiddenStates(
            body, experts, sequences, spec.Schedule.BatchSize * 2, done => report(new ProgressReport(phase.Path, done, all)), either);
        using var aggregation = DmoeAggregation.New(body.Config.HiddenSize, experts.Count, spec.Seed, body.Device);
        var plan = StepsOf(phase, data);
        var margins = rows.Concat(held).Select(row => row.Value ?? 0).ToArray();
        var training = new DmoeJoining(SpecOf(phase), aggregation, z.to(body.Device), margins, rows.Count);
        training.Run(plan, result => Step(result with { Step = before + result.Step, TotalSteps = total }, metrics), either);
        _results[$"{phase.Path}/train/loss"] = training.LastLoss;
        if (held.Count > 0)
        {
            var (loss, accuracy) = training.Measure();
            _results[$"{phase.Path}/eval/loss"] = loss;
            _results[$"{phase.Path}/eval/accuracy"] = accuracy;
            report(new MetricReport(before + steps, new Dictionary<string, double> { [$"{phase.Path}/eval/loss"] = loss, [$"{phase.Path}/eval/accuracy"] = accuracy }));
        }

        var file = Path.Combine(Done, $"{phase.Path}.safetensors");
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        using var noGrad = no_grad();
        SafeTensorsWriter.Write(file, [.. aggregation.Tensors.Select(tensor => ($"{phase.Category}.{tensor.Name}", (Tensor)tensor.Parameter))]);
    }

    private int Order(string expert) => objective.Capabilities.Index().First(known => known.Item == Path.GetFileName(expert)).Index;

    private static IEnumerable<int[]> Sequences(Example pair) => [pair.InputIds[..pair.Ends![0]], pair.InputIds[pair.Ends[0]..]];

    private CausalLm Load(ScoreHead score)
    {
        var device = cuda.is_available() ? CUDA : CPU;
        return CausalLm.Load(spec.Model, DType(device), device, spec.HeldBase, score, spec.Seed, either);
    }

    private ScalarType DType(Device device) =>
        Estimate.PrecisionOf(spec.Precision, device.type == TorchSharp.DeviceType.CUDA) == Precision.Bfloat16 ? ScalarType.BFloat16 : ScalarType.Float32;

    /// <summary>Puts the results where the artifact has them.</summary>
    private void Publish(IReadOnlyList<(DmoePhase Phase, int Steps)> phases)
    {
        foreach (var (phase, _) in phases.Where(phase => phase.Phase.Stage is DmoeStage.Router or DmoeStage.Expert))
        {
            DmoeCheckpoints.Copy(Path.Combine(Done, phase.Path), Path.Combine(Result, phase.Path));
        }

        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        var files = objective.Categories.Select(category => SafeTensorsFile.Open(Path.Combine(Done, $"aggregation/{category}.safetensors"))).ToList();
        SafeTensorsWriter.Write(
            Path.Combine(Result, DmoeScorer.AggregationFile), [.. files.SelectMany(file => file.Entries.Keys.Order(StringComparer.Ordinal).Select(name => (name, file.Read(name))))]);
        files.ForEach(file => file.Dispose());
        DmoeScorer.WriteLayout(Result, objective.Categories, objective.Categories.ToDictionary(
            category => category,
            category => (IReadOnlyList<string>)[.. phases.Where(phase => phase.Phase.Stage == DmoeStage.Expert && phase.Phase.Category == category).Select(phase => phase.Phase.Capability!)]));
    }

    /// <summary>Measures the whole: pairs of the validation rows, by the experts that the router chooses.</summary>
    private void Evaluate(PreparedData data)
    {
        var pairs = data.Validation.Where(row => row.Capability is null).ToList();
        if (pairs.Count == 0)
        {
            return;
        }

        var device = cuda.is_available() ? CUDA : CPU;
        using var scorer = new DmoeScorer(Result, spec.Model, DType(device), device, spec.Schedule.BatchSize * 2);
        var answers = pairs.SelectMany(pair => Sequences(pair).Select(ids => new RoutedAnswer(ids, DmoePhase.PromptTokens(pair.Labels)))).ToList();
        var rewards = scorer.Score(answers, either);
        var leads = pairs.Select((pair, index) => (pair.Category, Routed: rewards[2 * index].Category, Lead: rewards[2 * index].Reward - rewards[(2 * index) + 1].Reward)).ToList();
        _results["eval/accuracy"] = leads.Average(pair => pair.Lead > 0 ? 1.0 : 0);
        _results["eval/margin"] = leads.Average(pair => pair.Lead);
        _results["eval/router_accuracy"] = leads.Average(pair => pair.Category == pair.Routed ? 1.0 : 0);
        foreach (var category in leads.GroupBy(pair => pair.Category!))
        {
            _results[$"eval/accuracy/{category.Key}"] = category.Average(pair => pair.Lead > 0 ? 1.0 : 0);
        }
    }
}
