using System.Globalization;
using System.Text.Json;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Dmoe;

/// <summary>Where a <see cref="DmoeRun"/> stands.</summary>
internal sealed record DmoeState
{
    /// <summary>Identifies spec and rows.</summary>
    public required string Run { get; init; }

    /// <summary>Number of the phase that is at work, from 0; the number of phases: all are over.</summary>
    public int Phase { get; init; }

    /// <summary>Steps of the whole run.</summary>
    public int Step { get; init; }

    /// <summary>Steps of the phase, of which there is a checkpoint; 0: it begins.</summary>
    public int PhaseStep { get; init; }

    /// <summary>Tokens that carried loss in the phases that are over.</summary>
    public long TrainedTokens { get; init; }

    /// <summary>Figures of the phases that are over.</summary>
    public Dictionary<string, double> Results { get; init; } = [];
}

/// <summary>Checkpoints of a whole run: <c>checkpoints/step-000100/</c> with the results of the phases that are over, the checkpoint of the one at work, and a manifest.</summary>
internal sealed class DmoeCheckpoints(string work, int keep)
{
    /// <summary>Results of the phases that are over, below the work folder; hidden, so that they are no part of the artifact.</summary>
    public const string Done = ".done";

    /// <summary>Work folder of the phase at work.</summary>
    public const string Phase = ".phase";

    private const string StateFile = "state.json";
    private const string DoneInside = "done";
    private const string PhaseInside = "phase";

    private string Root => Path.Combine(work, "checkpoints");

    /// <summary>Makes a checkpoint of what lies in the work folder, and removes all but the newest.</summary>
    /// <returns>Its folder, below the work folder.</returns>
    public string Save(DmoeState state)
    {
        var target = FolderOf(state.Step);
        var part = Path.Combine(Root, ".part");
        Remove(part);
        Directory.CreateDirectory(part);
        Copy(Path.Combine(work, Done), Path.Combine(part, DoneInside));
        if (state.PhaseStep > 0)
        {
            Copy(PhaseFolder(Path.Combine(work, Phase), state.PhaseStep), PhaseFolder(Path.Combine(part, PhaseInside), state.PhaseStep));
        }

        RunHistory.Keep(work, part);
        File.WriteAllText(Path.Combine(part, StateFile), JsonSerializer.Serialize(state, SpecJson.Options));
        Manifest.Write(part);
        Remove(target);
        DurableFile.MoveFolder(part, target);
        foreach (var old in Steps().Skip(keep))
        {
            Remove(FolderOf(old));
        }

        return "checkpoints/" + Path.GetFileName(target);
    }

    /// <summary>Brings the work folder to the newest checkpoint that is whole; without one, to the start.</summary>
    /// <exception cref="TrainingException">The checkpoint is of another run.</exception>
    public DmoeState Restore(string identity, Action<string> warn, CancellationToken ct)
    {
        Remove(Path.Combine(work, Done));
        Remove(Path.Combine(work, Phase));
        Remove(Path.Combine(Root, ".part"));
        foreach (var step in Steps())
        {
            var folder = FolderOf(step);
            if (!Manifest.Verify(folder, out var problem, ct))
            {
                warn($"The checkpoint of step {step} is not whole ({problem}) and is passed over.");
                Remove(folder);
                continue;
            }

            var state = JsonSerializer.Deserialize<DmoeState>(File.ReadAllBytes(Path.Combine(folder, StateFile)), SpecJson.Options);
            if (state?.Run != identity)
            {
                throw TrainingException.InvalidSpec(
                    "The work folder holds checkpoints of another spec or of other rows; give an empty folder, or start from those weights with adapter.from.");
            }

            Copy(Path.Combine(folder, DoneInside), Path.Combine(work, Done));
            Copy(Path.Combine(folder, PhaseInside), Path.Combine(work, Phase));
            RunHistory.Restore(folder, work);
            return state;
        }

        RunHistory.Restore(checkpoint: null, work);
        return new() { Run = identity };
    }

    /// <summary>Removes what only the run itself needs.</summary>
    public static void Tidy(string work)
    {
        Remove(Path.Combine(work, Done));
        Remove(Path.Combine(work, Phase));
    }

    /// <summary>Copies a folder and what is below it; one that is absent is empty.</summary>
    public static void Copy(string from, string to)
    {
        if (!Directory.Exists(from))
        {
            return;
        }

        RunHistory.CopyFolder(from, to);
        foreach (var inside in Directory.EnumerateDirectories(from))
        {
            Copy(inside, Path.Combine(to, Path.GetFileName(inside)));
        }
    }

    private static string PhaseFolder(string phase, int step) => Path.Combine(phase, "checkpoints", Name(step));

    private string FolderOf(int step) => Path.Combine(Root, Name(step));

    private static string Name(int step) => string.Create(CultureInfo.InvariantCulture, $"step-{step:D6}");

    /// <summary>Steps that have a checkpoint, newest first.</summary>
    private List<int> Steps() => !Directory.Exists(Root)
        ? []
        : [.. Directory.EnumerateDirectories(Root, "step-*")
            .Select(path => int.TryParse(Path.GetFileName(path).AsSpan("step-".Length), NumberStyles.None, CultureInfo.InvariantCulture, out var step) ? step : -1)
            .Where(step => step >= 0)
            .OrderDescending()];

    private static void Remove(string folder)
    {
        if (Directory.Exists(folder))
        {
            File.Delete(Path.Combine(folder, Manifest.FileName));   // what is left of a removal that was cut short does not look whole
            Directory.Delete(folder, recursive: true);
        }
    }
}
