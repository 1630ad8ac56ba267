using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Dmoe;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Rewards;
using TrainingService.Training.Scoring;
using TrainingService.Training.Spectra;
using TrainingService.Training.Throughput;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training;

/// <summary>One run from spec to artifacts: reads model and rows, trains, and writes what a run leaves behind into a work folder.</summary>
/// <remarks>
/// <para>A work folder that holds checkpoints of the same spec and rows is gone on with: the end is the same to the bit as that of an
/// unbroken run (on a CPU, with as many threads).</para>
/// <para>The saved weights are those after the last step. With <c>early_stopping_patience</c> they are those of the lowest evaluation loss.</para>
/// <para>Precision bfloat16: frozen weights and activations are bfloat16; an adapter's tensors, their gradients and the optimizer's state are
/// float32, and the products with them bfloat16 with float32 sums. In full fine-tuning the weights are bfloat16 with float32 masters in the optimizer.</para>
/// <para>A folder with <c>config.json</c> and no weights starts from random ones, by the seed, when the objective is <c>pretraining</c> and
/// the adapter <c>full</c>.</para>
/// </remarks>
public static class TrainingRun
{
    private static readonly TimeSpan ProgressEvery = TimeSpan.FromSeconds(1);

    /// <param name="spec">All its paths are local.</param>
    /// <param name="workFolder">Created when missing.</param>
    /// <param name="report">Called on this thread.</param>
    /// <param name="cacheFolder">Where token sequences are kept for this run and others, and removed by whoever owns it; null: in the work
    /// folder, until the run is complete.</param>
    /// <param name="baseModelName">The base model as its user names it, for the adapter's configuration; null: what its files say, else the folder's name.</param>
    /// <returns>The last report, not yet reported: everything is on disk when it exists.</returns>
    /// <exception cref="TrainingException">The run ended without a result.</exception>
    /// <exception cref="RunStoppedException">Asked for by <paramref name="control"/>.</exception>
    /// <exception cref="OperationCanceledException">Asked for by <paramref name="ct"/>.</exception>
    public static DoneReport Execute(
        TrainingSpec spec, string workFolder, Action<Report> report, RunControl control, CancellationToken ct, string? baseModelName = null,
        string? cacheFolder = null)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(ct, control.Stopping);
        var reached = 0;
        Estimate? estimate = null;
        var usage = new UsageMeter();
        void Observed(Report line)
        {
            usage.Observe(line);
            report(line);
        }

        try
        {
            return Execute(spec, workFolder, Observed, usage, control, baseModelName, cacheFolder, ref reached, ref estimate, ct, either.Token);
        }
        catch (OperationCanceledException) when (control.StopRequested && !ct.IsCancellationRequested)
        {
            throw new RunStoppedException(reached);
        }
        catch (Exception e) when (RunFailures.IsDiskFull(e))
        {
            throw RunFailures.DiskFull(spec, estimate, workFolder, e);
        }
        catch (Exception e) when (e is not TrainingException && RunFailures.IsOutOfMemory(e))
        {
            throw RunFailures.OutOfMemory(estimate, e);
        }
    }

    /// <param name="either">Fires with <paramref name="ct"/> and with the wish to stop.</param>
    /// <param name="reached">Steps of the newest checkpoint.</param>
    /// <param name="estimate">What the run takes, once its rows are known.</param>
    private static DoneReport Execute(
        TrainingSpec spec, string workFolder, Action<Report> report, UsageMeter usage, RunControl control, string? baseModelName, string? cacheFolder,
        ref int reached, ref Estimate? estimate, CancellationToken ct, CancellationToken either)
    {
        var config = spec.Objective.On(HuggingFaceFolder.ReadConfig(spec.Model));
        ThrowIfAny(SpecChecks.AgainstModel(spec, config));
        spec = spec with { Data = spec.Data with { MaxLength = Math.Min(spec.Data.MaxLength, Math.Max(2, config.MaxPositions - VirtualTokensOf(spec.Adapter))) } };
        Directory.CreateDirectory(workFolder);
        File.Delete(Path.Combine(workFolder, Manifest.FileName));   // a folder in work is not a finished artifact

        report(new PhaseReport("tokenizing"));
        var tokenizer = Tokenizer.IsIn(spec.Model) ? Tokenizer.Load(spec.Model) : null;
        var ownCache = Path.Combine(workFolder, ".tokens");
        using var data = spec.Objective.Choose(Tokenize(spec, config, tokenizer, cacheFolder ?? ownCache, report, either));
        WriteJson(Path.Combine(workFolder, "data", "report.json"), data.Report);   // names every bad row; the exception names the first
        data.Report.ThrowIfUnusable();
        var inspected = new[] { ("train", data.Train), ("validation", data.Validation) }.SelectMany(split =>
            spec.Objective.Inspect(split.Item1, Unstopped(split.Item2, either)));
        foreach (var warning in data.Report.Warnings.Concat(inspected))
        {
            report(new WarningReport(warning));
        }

        var device = cuda.is_available() ? CUDA : CPU;
        var onGpu = device.type == TorchSharp.DeviceType.CUDA;
        var dtype = Estimate.PrecisionOf(spec.Precision, onGpu) == Precision.Bfloat16 ? ScalarType.BFloat16 : ScalarType.Float32;
        estimate = RunFailures.EstimateFor(spec, config, data.Report.Train, onGpu);
        if (!onGpu)
        {
            RunFailures.ThrowIfClearlyTooLarge(estimate, MachineMemory.Bytes);
        }

        usage.Start(onGpu ? CudaDriverMemory.Open() : null);
        if (spec.Objective is DmoeRewardConfig { Phase: null } several)
        {
            var phases = new DmoeRun(spec, several, workFolder, report, control, baseModelName, cacheFolder ?? ownCache, ct, either);
            var done = phases.Execute(data, IdentityOf(spec, data));
            Complete(spec, workFolder, data, ownCache);
            DmoeCheckpoints.Tidy(workFolder);
            return done with { Usage = usage.Read() };
        }

        using var scope = NewDisposeScope();
        using var model = StartsFromScratch(spec)
            ? CausalLm.Create(config, dtype, device, spec.Seed, either)
            : CausalLm.Load(spec.Model, dtype, device, spec.HeldBase, config.Score, spec.Seed, either);
        model.Checkpointing = spec.ActivationCheckpointing;
        either.ThrowIfCancellationRequested();
        var weights = spec.Adapter is FullConfig ? "model" : "adapter";
        var name = baseModelName ?? NameOf(spec.Model, config);
        var padId = PadId(tokenizer, config);
        var checkpoints = new CheckpointStore(Path.Combine(workFolder, "checkpoints"), weights, spec.Checkpoints.Keep)
        {
            KeepsBest = spec.Evaluation.EarlyStoppingPatience is not null,
            AddFiles = checkpoint => RunHistory.Keep(workFolder, checkpoint),
            AddedFiles = RunHistory.Files,
        };
        var start = Resume(checkpoints, IdentityOf(spec, data), report, either);
        var (train, validation) = Referenced(spec, config, model, data, device, padId, report, either);
        using var shown = start.Step > 0 || spec.Data.Calibration is not { } rows
            ? null
            : Tokenize(spec with { Data = spec.Data with { Train = rows, Validation = null, ValidationSplit = 0 } }, config, tokenizer,
                cacheFolder ?? ownCache, report, either, "calibration");
        shown?.Report.ThrowIfUnusable();
        using var adapter = spec.Adapter.Reading(tokenizer).Attach(
            model, spec.Seed, CalibrationOf(spec, shown ?? data, device, padId, report, either), start.Step > 0 ? checkpoints.WeightsOf(start.Step) : null);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = spec.Optimizer.Create(parameters);
        var plan = new StepPlan(BatchPlan.ForTraining(train, spec.Data, spec.Objective.Use, spec.Schedule.BatchSize, padId, spec.Seed), spec.Schedule);
        report(new EstimateReport(estimate.CostOf(spec, onGpu, plan.TotalSteps)));
        adapter.Begin(plan.TotalSteps);
        RunHistory.Restore(start.Step > 0 ? checkpoints.FolderOf(start.Step) : null, workFolder);
        if (start.Step > 0)
        {
            checkpoints.Load(start, adapter, optimizer);
        }

        reached = start.Step;

        ModelCard CardOf(CheckpointState state) => new(name)
        {
            Data = $"{Path.GetFileName(spec.Data.Train)}: {data.Report.Train.UsedRows} rows, {data.Report.Train.TrainableTokens} trainable tokens",
            Spec = spec,
            Results = ResultsOf(spec.Objective, state),
        };
        CheckpointState state;
        using (var metrics = new MetricsLog(Path.Combine(workFolder, "metrics"), start.Step > 0 ? start.Step : null))
        {
            state = new Trainer
            {
                Spec = spec,
                Model = model,
                Adapter = adapter,
                Parameters = parameters,
                Optimizer = optimizer,
                Plan = plan,
                Validation = validation,
                Checkpoints = checkpoints,
                CardOf = CardOf,
                Metrics = metrics,
                Report = report,
                Device = device,
                PadId = padId,
                AfterStep = (step, stop) => DrawSpectra(spec, adapter, workFolder, step, stop),
            }.Run(start, control, ct);
        }

        reached = state.Step;
        either.ThrowIfCancellationRequested();
        if (spec.Evaluation.EarlyStoppingPatience is not null && state.BestStep is { } best && best != state.Step)
        {
            adapter.Load(checkpoints.BestWeights);
        }

        adapter.SetTraining(false);
        report(new PhaseReport("exporting"));
        RemoveParts(Path.Combine(workFolder, weights));
        LossCurve.Write(Path.Combine(workFolder, "metrics"));
        adapter.Save(Path.Combine(workFolder, weights), CardOf(state));
        if (adapter is FullAdapter)
        {
            CopyTokenizer(spec.Model, Path.Combine(workFolder, weights));
        }

        if (data.Validation.Count > 0 && spec.Objective is { Use: RowUse.Pairs or RowUse.Critiques, Score: not null })
        {
            report(new PhaseReport("evaluating"));
            var pairs = Judge(spec, model, adapter, data.Validation, padId, device, workFolder, report, either);
            if (pairs.Count > 0 && spec.Objective.Use == RowUse.Pairs)   // rewards after the model's own critiques are others than after those of the rows
            {
                RewardDistribution.Of(pairs.SelectMany(pair => (float[])[(float)pair.Chosen, (float)pair.Rejected])).Write(Path.Combine(workFolder, weights));
            }
        }
        else if (data.Validation.Count > 0 && spec.Objective is { Use: RowUse.Scores, Score: not null })
        {
            RewardDistribution.Of(RewardDistribution.RewardsOf(
                model, adapter, spec.Objective, data.Validation, spec.Schedule.BatchSize, padId, device, either)).Write(Path.Combine(workFolder, weights));
        }

        if (spec.Spectra.Enabled)
        {
            report(new PhaseReport("analysing"));
            SpectraWriter.Write(adapter, Path.Combine(workFolder, "spectra"), BaseOf(spec), ct: either);
        }

        either.ThrowIfCancellationRequested();
        Complete(spec, workFolder, data, ownCache);
        return new(state.Step, state.TrainedTokens, ResultsOf(spec.Objective, state), usage.Read());
    }

    /// <summary>Ends a work folder: what only the run needed goes, and the manifest says that the rest is whole.</summary>
    private static void Complete(TrainingSpec spec, string workFolder, PreparedData data, string ownCache)
    {
        data.Dispose();
        if (Directory.Exists(ownCache))
        {
            Directory.Delete(ownCache, recursive: true);
        }

        File.WriteAllText(Path.Combine(workFolder, "spec.json"), SpecJson.Serialize(spec));
        Manifest.Write(workFolder);
    }

    /// <summary>What the trained reward model does on pairs that it has not seen, and what is wrong with it.</summary>
    /// <returns>The pairs with their rewards.</returns>
    private static IReadOnlyList<ScoredPair> Judge(
        TrainingSpec spec, CausalLm model, Adapter adapter, IExamples validation, int padId, Device device, string workFolder, Action<Report> report,
        CancellationToken ct)
    {
        var pairs = RewardWriter.Score(model, adapter, spec.Objective, validation, spec.Schedule.BatchSize, padId, device, ct);
        if (pairs.Count == 0)
        {
            return pairs;   // all rows are ties
        }

        var sections = spec.Evaluation.Sections is { } named ? new RewardSections(named) : null;
        var judged = RewardWriter.Write(pairs, Path.Combine(workFolder, "evaluation"), sections, spec.Objective.Use == RowUse.Critiques);
        foreach (var problem in judged.Findings.Where(finding => finding.Level == FindingLevel.Problem))
        {
            report(new WarningReport(problem.Text));
        }

        return pairs;
    }

    private static IEnumerable<Example> Unstopped(IEnumerable<Example> rows, CancellationToken ct) => rows.Select(row =>
    {
        ct.ThrowIfCancellationRequested();
        return row;
    });

    /// <summary>The training rows in the order of the first epoch, for methods that look at them before they start.</summary>
    private static Calibration CalibrationOf(
        TrainingSpec spec, PreparedData data, Device device, int padId, Action<Report> report, CancellationToken ct)
    {
        IEnumerable<Batch> Rows(int limit)
        {
            report(new PhaseReport("calibrating"));
            var plan = new BatchPlan(data.Train, batchSize: 1, padId, packTo: null, spec.Data.Shuffle ? spec.Seed : null);
            return plan.ForEpoch(0).Take(limit).Select(plan.Collate);
        }

        var told = Stopwatch.GetTimestamp();
        return new(
            spec.Objective, device, Rows,
            (done, all) =>
            {
                if (Stopwatch.GetElapsedTime(told) >= ProgressEvery)
                {
                    told = Stopwatch.GetTimestamp();
                    report(new ProgressReport("calibrating", done, all, ProgressUnit.Rows));
                }
            },
            ct);
    }

    /// <summary>The rows as the objective sees them: with the reference model's log-probabilities, where these are computed before training.</summary>
    /// <param name="model">With nothing attached yet.</param>
    private static (IExamples Train, IExamples Validation) Referenced(
        TrainingSpec spec, ModelConfig config, CausalLm model, PreparedData data, Device device, int padId, Action<Report> report, CancellationToken ct)
    {
        if (spec.Objective is not ReferencedConfig objective)
        {
            return (data.Train, data.Validation);
        }

        var (train, validation) = (objective.Arranged(data.Train, spec.Data.MaxLength), objective.Arranged(data.Validation, spec.Data.MaxLength));
        if (!objective.PrecomputeReference && spec.Adapter.LeavesBase(config, spec.HeldBase))
        {
            return (train, validation);
        }

        const string Phase = "reference";
        report(new PhaseReport(Phase));
        var told = Stopwatch.GetTimestamp();
        IExamples Measured(IExamples examples, int before) => ReferencePass.Over(
            objective, model, examples, spec.Schedule.BatchSize, padId, device,
            done =>
            {
                if (Stopwatch.GetElapsedTime(told) >= ProgressEvery)
                {
                    told = Stopwatch.GetTimestamp();
                    report(new ProgressReport(Phase, before + done, train.Count + validation.Count, ProgressUnit.Rows));
                }
            },
            ct);
        return (Measured(train, 0), Measured(validation, train.Count));
    }

    private static PreparedData Tokenize(
        TrainingSpec spec, ModelConfig config, Tokenizer? tokenizer, string cacheFolder, Action<Report> report, CancellationToken ct,
        string member = "train")
    {
        var cache = new TokenCache(cacheFolder, tokenizer is null ? null : TokenCache.Sha256Of(TokenizerFiles(spec.Model), ct));
        var told = Stopwatch.GetTimestamp();
        return DataSets.Inspect(
            spec.DataForAdapter(), spec.Objective.Use, tokenizer, config.VocabularySize, spec.Seed,
            progress =>
            {
                if (Stopwatch.GetElapsedTime(told) >= ProgressEvery)
                {
                    told = Stopwatch.GetTimestamp();
                    report(new ProgressReport("tokenizing", progress.Bytes, progress.TotalBytes));
                }
            },
            ct, cache, member);
    }

    /// <summary>The figures of a run, by their public names.</summary>
    private static Dictionary<string, double> ResultsOf(ObjectiveConfig objective, CheckpointState state)
    {
        var results = new Dictionary<string, double>();
        void Add(string name, double? value)
        {
            if (value is { } number)
            {
                results[name] = number;
            }
        }

        Add("train/loss", state.Loss);
        foreach (var (name, value) in state.FirstEvaluation?.Named(objective) ?? [])
        {
            Add(name + "_before", value);
        }

        foreach (var (name, value) in state.LastEvaluation?.Named(objective) ?? [])
        {
            Add(name, value);
        }

        Add("eval/best_loss", state.BestLoss);
        Add("eval/best_step", state.BestStep);
        return results;
    }

    private static CheckpointState Resume(CheckpointStore checkpoints, string identity, Action<Report> report, CancellationToken ct)
    {
        var found = checkpoints.Newest(message => report(new WarningReport(message)), ct);
        if (found is not null && found.Run != identity)
        {
            throw TrainingException.InvalidSpec(
                "The work folder holds checkpoints of another spec or of other rows; give an empty folder, or start from those weights with adapter.from.");
        }

        if (found is null && checkpoints.Steps.Count > 0)
        {
            report(new WarningReport("No checkpoint is whole; the run starts anew."));
        }

        checkpoints.RemoveAfter(found?.Step ?? -1);
        return found ?? new CheckpointState { Step = 0, Run = identity };
    }

    /// <summary>Hash of all that decides the result, but for where the files lie: another machine may go on with a run.</summary>
    private static string IdentityOf(TrainingSpec spec, PreparedData data)
    {
        var places = spec with
        {
            Model = "",
            Data = spec.Data with { Train = "", Validation = null, Calibration = null },   // rows that were looked at are in the checkpoint
            Adapter = spec.Adapter.WithSources(_ => ""),
            Checkpoints = new(),
            Spectra = new(),
            ActivationCheckpointing = ActivationCheckpointing.Off,   // the numbers are the same: a run that lacked memory may go on with it
        };
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes($"{SpecJson.Serialize(places)}\n{data.Content}")));
    }

    /// <summary>Those of the saved adapter that a run starts from, which decides where the spec says nothing.</summary>
    private static int VirtualTokensOf(AdapterConfig adapter) =>
        adapter is VirtualTokensConfig { From: { } folder } ? PeftFolder.Open(folder).Choice.VirtualTokens : adapter.VirtualTokens;

    /// <summary>Removes what a killed process had begun to write under a name that is not used again.</summary>
    private static void RemoveParts(string folder)
    {
        foreach (var part in Directory.Exists(folder) ? Directory.GetFiles(folder, "*.part") : [])
        {
            File.Delete(part);
        }
    }

    private static void DrawSpectra(TrainingSpec spec, Adapter adapter, string workFolder, int step, CancellationToken ct)
    {
        if (spec.Spectra.Enabled && spec.Spectra.EverySteps is { } every && step % every == 0)
        {
            SpectraWriter.Write(adapter, Path.Combine(workFolder, "spectra", FormattableString.Invariant($"step-{step:D6}")), BaseOf(spec), ct: ct);
        }
    }

    private static bool StartsFromScratch(TrainingSpec spec) =>
        spec.Objective is PretrainingConfig && spec.Adapter is FullConfig { From: null }
        && !Directory.EnumerateFiles(spec.Model).Any(file => Path.GetExtension(file) is ".safetensors" or ".bin" or ".pt" or ".pth");

    /// <summary>Folder of the weights before training; null when they were random.</summary>
    private static string? BaseOf(TrainingSpec spec) => StartsFromScratch(spec) ? null : spec.Model;

    private static IEnumerable<string> TokenizerFiles(string folder) =>
        new[]
        {
            "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
            "added_tokens.json", "chat_template.jinja", "generation_config.json",
        }.Select(name => Path.Combine(folder, name)).Where(File.Exists);

    private static void CopyTokenizer(string from, string to)
    {
        foreach (var file in TokenizerFiles(from))
        {
            File.Copy(file, Path.Combine(to, Path.GetFileName(file)), overwrite: true);
        }
    }

    /// <summary>Padding is never attended to and carries no loss, so any id of the vocabulary serves.</summary>
    private static int PadId(Tokenizer? tokenizer, ModelConfig config) =>
        (tokenizer?.PadId ?? config.PadId) is { } id && id >= 0 && id < config.VocabularySize ? id : 0;

    private static string NameOf(string folder, ModelConfig config)
    {
        using var document = JsonDocument.Parse(config.SourceJson);
        return document.RootElement.TryGetProperty("_name_or_path", out var name) && name.GetString() is { Length: > 0 } text && !Path.IsPathRooted(text)
            ? text
            : Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder)));
    }

    private static void WriteJson<T>(string path, T value)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, JsonSerializer.Serialize(value, SpecJson.Options));
    }

    private static void ThrowIfAny(IReadOnlyList<SpecError> errors)
    {
        if (errors.Count > 0)
        {
            throw TrainingException.InvalidSpec(string.Join(" ", errors.Select(error => error.Message)), errors[0].Path);
        }
    }
}
