using System.Globalization;
using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Checkpoints;

/// <summary>The checkpoints of a run: <c>checkpoints/step-000100/</c> with the saved weights, the optimizer's state, and a manifest.</summary>
/// <remarks>
/// A checkpoint is written beside its place, gets its manifest last, is flushed to the disk, and is renamed into place. One whose files
/// differ from its manifest is passed over in favour of the one before.
/// </remarks>
/// <param name="folder">The folder <c>checkpoints</c> of the run.</param>
/// <param name="weights">Name of the folder of the saved weights inside a checkpoint: <c>adapter</c> or <c>model</c>.</param>
/// <param name="keep">Newest checkpoints that stay; the best one stays besides.</param>
public sealed class CheckpointStore(string folder, string weights, int keep)
{
    private const string StateFile = "state.json";
    private const string OptimizerFile = "optimizer.safetensors";
    private const string AdapterStateFile = "adapter_state.safetensors";
    private const string AdapterRecordFile = "adapter_state.json";
    private const string Best = "best";
    private const string Prefix = "step-";
    private const string Replaced = ".old";
    private string? _best;
    private int? _passing;

    /// <summary>Whether each checkpoint holds the weights of the best step too, so that it alone is enough for a run that ends in those.</summary>
    public bool KeepsBest { get; init; }

    /// <summary>Adds files to a checkpoint that is being written, given its folder.</summary>
    public Action<string> AddFiles { get; init; } = _ => { };

    /// <summary>Names of what <see cref="AddFiles"/> always adds: a checkpoint without them is of no use.</summary>
    public IReadOnlyList<string> AddedFiles { get; init; } = [];

    /// <summary>Steps that have a checkpoint, newest first; whether it is whole is not looked at.</summary>
    public IReadOnlyList<int> Steps => !Directory.Exists(folder)
        ? []
        : [.. Directory.EnumerateDirectories(folder, Prefix + "*")
            .Select(path => int.TryParse(Path.GetFileName(path).AsSpan(Prefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out var step) ? step : -1)
            .Where(step => step >= 0 && Directory.Exists(FolderOf(step)))
            .OrderDescending()];

    /// <summary>Folder of the checkpoint of a step.</summary>
    public string FolderOf(int step) => Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"{Prefix}{step:D6}"));

    /// <summary>Where a checkpoint keeps what the adapter saved.</summary>
    public string WeightsOf(int step) => Path.Combine(FolderOf(step), weights);

    /// <summary>Folder of the best weights of the state that was saved or loaded last, in the layout in which a run saves them.</summary>
    public string BestWeights => _best ?? throw new InvalidOperationException("There was no evaluation, or the store does not keep the best weights.");

    /// <summary>Saves a checkpoint and removes those that are neither among the newest nor the best.</summary>
    /// <exception cref="IOException">Nothing of it is left then.</exception>
    public void Save(CheckpointState state, Adapter adapter, Optimizer optimizer, ModelCard card)
    {
        var target = FolderOf(state.Step);
        var part = Hidden(target);
        try
        {
            Remove(part);
            Directory.CreateDirectory(part);
            adapter.Save(Path.Combine(part, weights), card);
            WriteTensors(Path.Combine(part, OptimizerFile), optimizer.State);
            WriteTensors(Path.Combine(part, AdapterStateFile), adapter.State.Tensors);
            if (adapter.State.Record is { } record)
            {
                File.WriteAllText(Path.Combine(part, AdapterRecordFile), record.GetRawText());
            }

            if (KeepsBest && state.BestStep is not null && state.BestStep != state.Step)
            {
                RunHistory.CopyFolder(BestWeights, Path.Combine(part, Best));
            }

            AddFiles(part);
            File.WriteAllText(Path.Combine(part, StateFile), JsonSerializer.Serialize(state, SpecJson.Options));
            Manifest.Write(part);
            Publish(part, target);
        }
        finally
        {
            Remove(part);   // after a failure; after the rename there is nothing to remove
        }

        _best = BestOf(state);
        Prune(state);
    }

    /// <summary>State of the newest checkpoint that is whole; null when there is none.</summary>
    /// <param name="warn">Gets a sentence for each newer one that is not.</param>
    public CheckpointState? Newest(Action<string> warn, CancellationToken ct = default)
    {
        Tidy();
        foreach (var step in Steps)
        {
            if (Read(step, out var problem, ct) is { } state)
            {
                return state;
            }

            warn($"The checkpoint of step {step} is not whole ({problem}) and is passed over.");
        }

        return null;
    }

    /// <summary>Gives adapter and optimizer the state of a checkpoint.</summary>
    public void Load(CheckpointState state, Adapter adapter, Optimizer optimizer)
    {
        _best = BestOf(state);
        _passing = state.Passing ? state.Step : null;
        var from = FolderOf(state.Step);
        adapter.Load(WeightsOf(state.Step));
        if (adapter.State != AdapterState.None)
        {
            using var scope = NewDisposeScope();
            adapter.Restore(ReadAdapterState(from));
        }

        using var file = optimizer.State.Count == 0 ? null : SafeTensorsFile.Open(Path.Combine(from, OptimizerFile));
        optimizer.Load(state.Step, name => file!.Read(name));
    }

    /// <summary>Removes the checkpoints of later steps: they were passed over, or belong to a part of the run that is done again.</summary>
    public void RemoveAfter(int step)
    {
        foreach (var later in Steps.Where(later => later > step))
        {
            Remove(FolderOf(later));
        }
    }

    private static void WriteTensors(string path, IReadOnlyList<(string Name, Tensor Tensor)> tensors)
    {
        if (tensors.Count > 0)
        {
            SafeTensorsWriter.Write(path, tensors);
        }
    }

    private static AdapterState ReadAdapterState(string from)
    {
        var tensors = new List<(string, Tensor)>();
        if (File.Exists(Path.Combine(from, AdapterStateFile)))
        {
            using var file = SafeTensorsFile.Open(Path.Combine(from, AdapterStateFile));
            tensors.AddRange(file.Entries.Keys.Select(name => (name, file.Read(name))));
        }

        var record = Path.Combine(from, AdapterRecordFile);
        return new(tensors, File.Exists(record) ? JsonElement.Parse(File.ReadAllBytes(record)) : null);
    }

    /// <summary>Renames into place. An older checkpoint of the step keeps a name until then: at every moment one of the two is whole.</summary>
    private static void Publish(string part, string target)
    {
        var old = Hidden(target) + Replaced;
        if (Directory.Exists(target))
        {
            Remove(old);
            Directory.Move(target, old);
        }

        DurableFile.MoveFolder(part, target);
        Remove(old);
    }

    /// <summary>Ends what a killed process left half done.</summary>
    private void Tidy()
    {
        if (!Directory.Exists(folder))
        {
            return;
        }

        foreach (var path in Directory.GetDirectories(folder, "." + Prefix + "*"))
        {
            var target = Path.Combine(folder, Path.GetFileName(path)[1..].Replace(Replaced, "", StringComparison.Ordinal));
            if (path.EndsWith(Replaced, StringComparison.Ordinal) && !Directory.Exists(target))
            {
                Directory.Move(path, target);
            }
            else
            {
                Remove(path);
            }
        }
    }

    private CheckpointState? Read(int step, out string? problem, CancellationToken ct)
    {
        var path = FolderOf(step);
        if (!Manifest.Verify(path, out problem, ct))
        {
            return null;
        }

        try
        {
            var names = Manifest.Read(path).Files.Select(file => file.Path).ToHashSet();
            problem = !names.IsSupersetOf(AddedFiles.Append(StateFile)) || !names.Any(name => name.StartsWith(weights + "/", StringComparison.Ordinal))
                ? "its manifest does not name all it needs"
                : null;
            if (problem is null)
            {
                var state = JsonSerializer.Deserialize<CheckpointState>(File.ReadAllBytes(Path.Combine(path, StateFile)), SpecJson.Options);
                problem = state?.Step == step ? null : $"{StateFile} is of another step";
                return problem is null ? state : null;
            }
        }
        catch (Exception e) when (HostileJson.IsMalformed(e))
        {
            problem = $"{StateFile} cannot be read";
        }

        return null;
    }

    private string? BestOf(CheckpointState state)
    {
        if (state.BestStep is not { } best)
        {
            return null;
        }

        var inside = Path.Combine(FolderOf(state.Step), Best);
        return best != state.Step && Directory.Exists(inside) ? inside : Path.Combine(FolderOf(best), weights);
    }

    private void Prune(CheckpointState state)
    {
        var passed = _passing;
        _passing = state.Passing ? state.Step : null;
        var all = Steps;
        var steps = all.Where(step => step != passed || step == state.Step).ToArray();
        foreach (var old in all.Except(steps).Concat(steps.Skip(keep).Where(step => step != state.BestStep)))
        {
            Remove(FolderOf(old));
        }
    }

    private static string Hidden(string target) => Path.Combine(Path.GetDirectoryName(target)!, "." + Path.GetFileName(target));

    /// <summary>Removes a folder, its manifest first: what is left of a removal that was cut short does not look whole.</summary>
    private static void Remove(string path)
    {
        if (Directory.Exists(path))
        {
            File.Delete(Path.Combine(path, Manifest.FileName));
            Directory.Delete(path, recursive: true);
        }
    }
}
