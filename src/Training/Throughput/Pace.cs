using System.Text.Json;

namespace TrainingService.Training.Throughput;

/// <summary>A finished run, from which later ones are estimated.</summary>
/// <param name="Seconds">Of all its attempts.</param>
public sealed record PastRun(RunCost Cost, double Seconds);

/// <summary>How fast runs go here, learnt from those that have ended.</summary>
/// <remarks>
/// <para>A step takes its operations over the rate of runs alike: same device, same format, and a step of about the same size, since small
/// steps reach a smaller share of what the machine can do. A rate that was measured by training holds what no calibration by a product
/// sees: the allocator, the data, the neighbours. It costs nothing, and it follows the machine. Until a run has ended there is none.</para>
/// <para>What comes before and after the steps is taken over as it was.</para>
/// </remarks>
/// <param name="runs">Newest first.</param>
public sealed class Pace(IReadOnlyList<PastRun> runs)
{
    /// <summary>So many of the runs nearest in size are asked: one of them may have shared its machine.</summary>
    private const int Nearest = 3;

    private static readonly JsonSerializerOptions Line = new(SpecJson.Options) { WriteIndented = false };

    /// <summary>Of a service on which nothing has ended yet.</summary>
    public static Pace Unknown { get; } = new([]);

    /// <summary>Whether the newest run was on a GPU; so will be the next one.</summary>
    public bool OnGpu => runs.Count > 0 && runs[0].Cost.Device == "cuda";

    /// <param name="stored">What <see cref="Write"/> gave, and the seconds of the run; newest first.</param>
    public static Pace Read(IEnumerable<(string CostJson, double Seconds)> stored) =>
        new([.. stored.Select(run => new PastRun(Read(run.CostJson), run.Seconds))]);

    public static RunCost Read(string json) => JsonSerializer.Deserialize<RunCost>(json, Line)!;

    public static string Write(RunCost cost) => JsonSerializer.Serialize(cost, Line);

    /// <summary>The same run with the time that it should take, or without when nothing like it has run.</summary>
    public RunCost Timed(RunCost cost)
    {
        var alike = runs
            .Where(run => run.Cost.Device == cost.Device && run.Cost.Precision == cost.Precision)
            .Where(run => run.Cost is { SecondsPerStep: > 0, OperationsPerStep: > 0 })
            .OrderBy(run => Math.Abs(Math.Log(run.Cost.OperationsPerStep / cost.OperationsPerStep)))
            .Take(Nearest).ToList();
        if (alike.Count == 0 || cost.OperationsPerStep <= 0)
        {
            return cost;
        }

        var perStep = cost.OperationsPerStep / Median.Of(alike.Select(run => run.Cost.OperationsPerStep / run.Cost.SecondsPerStep!.Value));
        var around = Median.Of(alike.Select(run => Math.Max(0, run.Seconds - ((run.Cost.Steps ?? 0) * run.Cost.SecondsPerStep!.Value))));
        return cost with { SecondsPerStep = perStep, Seconds = cost.Steps is { } steps ? (steps * perStep) + around : null };
    }
}
