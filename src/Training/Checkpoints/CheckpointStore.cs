using System.Globalization;
using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Optimizers;

namespace TrainingService.Training.Checkpoints;

/// <summary>The checkpoints of a run: <c>checkpoints/step-000100/</c> with the saved weights, the optimizer's state, and a manifest.</summary>
/// <remarks>
/// A checkpoint is written beside its place, gets its manifest last, and is renamed into place. One whose files differ from its manifest
/// is passed over in favour of the one before.
/// </remarks>
/// <param name="folder">The folder <c>checkpoints</c> of the run.</param>
/// <param name="weights">Name of the folder of the saved weights inside a checkpoint: <c>adapter</c> or <c>model</c>.</param>
/// <param name="keep">Newest checkpoints that stay; the best one stays besides.</param>
public sealed class CheckpointStore(string folder, string weights, int keep)
{
    private const string StateFile = "state.json";
    private const string OptimizerFile = "optimizer.safetensors";
    private const string Prefix = "step-";
    private int? _passing;

    /// <summary>Steps that have a checkpoint, newest first; whether it is whole is not looked at.</summary>
    public IReadOnlyList<int> Steps => !Directory.Exists(folder)
        ? []
        : [.. Directory.EnumerateDirectories(folder, Prefix + "*")
            .Select(path => int.TryParse(Path.GetFileName(path).AsSpan(Prefix.Length), CultureInfo.InvariantCulture, out var step) ? step : -1)
            .Where(step => step >= 0)
            .OrderDescending()];

    /// <summary>Folder of the checkpoint of a step.</summary>
    public string FolderOf(int step) => Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"{Prefix}{step:D6}"));

    /// <summary>Folder of the weights of a step, in the layout in which a run saves them.</summary>
    public string WeightsOf(int step) => Path.Combine(FolderOf(step), weights);

    /// <summary>Saves a checkpoint and removes those that are neither among the newest nor the best.</summary>
    public void Save(CheckpointState state, Adapter adapter, Optimizer optimizer, ModelCard card)
    {
        var target = FolderOf(state.Step);
        var part = Path.Combine(folder, "." + Path.GetFileName(target));
        Remove(part);
        Directory.CreateDirectory(part);
        adapter.Save(Path.Combine(part, weights), card);
        if (optimizer.State is { Count: > 0 } tensors)
        {
            SafeTensorsWriter.Write(Path.Combine(part, OptimizerFile), tensors);
        }

        File.WriteAllText(Path.Combine(part, StateFile), JsonSerializer.Serialize(state, SpecJson.Options));
        Manifest.Write(part);
        Remove(target);
        Directory.Move(part, target);

        var passed = _passing;
        _passing = state.Passing ? state.Step : null;
        var steps = Steps.Where(step => step != passed || step == state.Step).ToArray();
        foreach (var old in Steps.Except(steps).Concat(steps.Skip(keep).Where(step => step != state.BestStep)))
        {
            Remove(FolderOf(old));
        }
    }

    /// <summary>State of the newest checkpoint that is whole; null when there is none.</summary>
    /// <param name="warn">Gets a sentence for each newer one that is not.</param>
    public CheckpointState? Newest(Action<string> warn)
    {
        foreach (var step in Steps)
        {
            if (Manifest.Verify(FolderOf(step), out var problem))
            {
                return JsonSerializer.Deserialize<CheckpointState>(File.ReadAllBytes(Path.Combine(FolderOf(step), StateFile)), SpecJson.Options);
            }

            warn($"The checkpoint of step {step} is not whole ({problem}); the run goes on from the one before.");
        }

        return null;
    }

    /// <summary>Gives adapter and optimizer the state of a checkpoint.</summary>
    public void Load(CheckpointState state, Adapter adapter, Optimizer optimizer)
    {
        _passing = state.Passing ? state.Step : null;
        adapter.Load(WeightsOf(state.Step));
        using var file = optimizer.State.Count == 0 ? null : SafeTensorsFile.Open(Path.Combine(FolderOf(state.Step), OptimizerFile));
        optimizer.Load(state.Step, name => file!.Read(name));
    }

    private static void Remove(string path)
    {
        if (Directory.Exists(path))
        {
            Directory.Delete(path, recursive: true);
        }
    }
}
