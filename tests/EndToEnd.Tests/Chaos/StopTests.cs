using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>Cancel, pause and the shutdown of a worker act within seconds whatever a job is busy with.</summary>
/// <remarks>CI cancels in three of the phases and pauses in all; <c>scripts/chaos.sh stops</c> does both in all.</remarks>
public sealed class StopTests(ITestOutputHelper output)
{
    /// <summary>Five seconds is the promise. A machine that runs other tests on all its cores at the same time gets three times as long.</summary>
    private static readonly TimeSpan Promise = TimeSpan.FromSeconds(ChaosScale.IsFull ? 5 : 15);

    /// <summary>What happens within seconds here does not happen because a lease ran out.</summary>
    private static readonly Dictionary<string, string> LongLease = new() { ["Worker__LeaseSeconds"] = "60" };

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(10);

    [Fact]
    public async Task Cancel_acts_in_every_phase()
    {
        await using var cluster = new Cluster(workers: 1, proxied: true, more: LongLease);
        await cluster.InitializeAsync();
        var data = await ChaosJob.UploadAsync(cluster);
        foreach (var phase in Phases(cluster).Where(phase => ChaosScale.IsFull || phase.Name is "downloading" or "training" or "uploading"))
        {
            cluster.Store.Pass();
            if (phase.WithoutStore)
            {
                cluster.Store.Blackhole();
            }

            var job = await ChaosJob.SubmitAsync(cluster, ChaosJob.Spec(cluster, data, seed: 3, steps: phase.Steps));
            await ReachAsync(cluster, job, phase);
            await cluster.Post($"/v1/jobs/{job}/cancel", null);
            await ActsAsync(cluster, job, phase, "cancelled");
        }
    }

    [Fact]
    public async Task Pause_acts_in_every_phase_and_the_job_ends_in_the_bytes_of_one_that_was_never_paused()
    {
        await using var cluster = new Cluster(workers: 1, proxied: true, more: LongLease);
        await cluster.InitializeAsync();
        var data = await ChaosJob.UploadAsync(cluster);
        var seed = UndisturbedRun.Seeds[0];
        cluster.Store.Blackhole();
        var job = await ChaosJob.SubmitAsync(cluster, ChaosJob.Spec(cluster, data, seed));
        var step = 0;
        foreach (var phase in Phases(cluster))
        {
            await ReachAsync(cluster, job, phase);
            await cluster.Post($"/v1/jobs/{job}/pause", null);
            var paused = await ActsAsync(cluster, job, phase, "paused");
            cluster.Store.Pass();
            Assert.True((int)paused["progress"]!["step"]! >= step, $"{phase.Name}: went on before step {step}: {paused}");
            step = (int)paused["progress"]!["step"]!;
            await cluster.Post($"/v1/jobs/{job}/resume", null);
        }

        var end = await cluster.WaitForEnd(job);
        Assert.True((string)end["status"]! == "succeeded", $"{end}\n{cluster.Logs}");
        ChaosJob.AssertSame(await UndisturbedRun.ResultAsync(seed), await ChaosJob.ResultAsync(cluster, job), "a job that was paused in every phase");
    }

    [Fact]
    public async Task A_worker_that_is_asked_to_end_hands_its_job_to_another_one()
    {
        await using var cluster = new Cluster(workers: 1, more: LongLease);
        await cluster.InitializeAsync();
        var data = await ChaosJob.UploadAsync(cluster);
        var seed = UndisturbedRun.Seeds[1];
        var job = await ChaosJob.SubmitAsync(cluster, ChaosJob.Spec(cluster, data, seed));
        await Eventually.Async(async () => await StepAsync(cluster, job) >= 4, () => $"four steps\n{cluster.Logs}");
        cluster.StartWorker(1);
        var leaving = cluster.Worker(0);
        var time = Stopwatch.StartNew();
        leaving.Send(Signal.Terminate);
        await Eventually.Async(
            async () => (int)(await cluster.Get($"/v1/jobs/{job}"))["attempt"]! == 2, () => $"the second worker has the job\n{cluster.Logs}");
        var handed = time.Elapsed;
        await leaving.WaitForExitAsync(Patience);
        output.WriteLine(string.Create(
            CultureInfo.InvariantCulture, $"SIGTERM: another worker had the job after {handed.TotalSeconds:F2} s; the first one had ended after {time.Elapsed.TotalSeconds:F2} s"));
        Assert.Equal(0, leaving.ExitCode);

        // Handed over, and not taken back after a lease that ran out.
        Assert.True(handed < TimeSpan.FromSeconds(60), $"{handed}");   // ShutdownGraceSeconds
        var end = await cluster.WaitForEnd(job);
        Assert.True((string)end["status"]! == "succeeded", $"{end}\n{cluster.Logs}");
        Assert.Equal((2, 0), ((int)end["attempt"]!, (int)end["recovery_count"]!));
        ChaosJob.AssertSame(await UndisturbedRun.ResultAsync(seed), await ChaosJob.ResultAsync(cluster, job), "a job that was handed over");
    }

    /// <summary>What a job passes through, and how each is recognised from outside.</summary>
    /// <param name="Steps">Steps of a job that shall come to this phase and no further.</param>
    /// <param name="WithoutStore">Whether the store has to hang for the phase to last.</param>
    private sealed record Phase(string Name, int Steps, bool WithoutStore, Func<string, Task<bool>> Reached);

    private static IReadOnlyList<Phase> Phases(Cluster cluster)
    {
        Func<string, Task<bool>> Shows(string phase) => async job => (string?)(await cluster.Get($"/v1/jobs/{job}"))["phase"] == phase;
        Func<string, Task<bool>> Writes(string path) => _ => Task.FromResult(cluster.Attempts(0).Any(folder => Path.Exists(Path.Combine(folder, path))));
        return
        [
            new("downloading", 2, true, Shows("downloading")),
            new("tokenizing", 2, false, _ => Task.FromResult(cluster.TrainingProcesses.Count > 0)),
            new("training", 24, false, async job => (string?)(await cluster.Get($"/v1/jobs/{job}"))["phase"] == "training" && await StepAsync(cluster, job) >= 3),
            new("evaluating", 24, false, Shows("evaluating")),
            new("exporting", 2, false, Writes("metrics/loss.svg")),
            new("analysing", 2, false, Writes("spectra")),
            new("uploading", 2, false, Writes("manifest.json")),
        ];
    }

    private static async Task ReachAsync(Cluster cluster, string job, Phase phase)
    {
        await Eventually.Async(() => phase.Reached(job), () => $"the phase {phase.Name}\n{cluster.Logs}");
        if (phase.Name == "uploading")
        {
            cluster.Store.Blackhole();
        }
    }

    private async Task<JsonNode> ActsAsync(Cluster cluster, string job, Phase phase, string status)
    {
        JsonNode state = new JsonObject();
        var seen = "";
        var took = await Eventually.Async(
            async () =>
            {
                state = await cluster.Get($"/v1/jobs/{job}");
                seen = seen.Length > 0 ? seen : (string?)state["phase"] ?? "";
                return (string)state["status"]! == status;
            },
            () => $"{phase.Name}: {job} is {status}, and not {state}\n{cluster.Logs}");
        output.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{phase.Name,-12} {status} after {took.TotalSeconds:F2} s at step {state["progress"]!["step"]} (the database said {seen})"));
        Assert.True(took < Promise, $"{phase.Name}: {status} after {took}, and {Promise} is promised.\n{cluster.Logs}");
        return state;
    }

    private static async Task<int> StepAsync(Cluster cluster, string job) => (int)(await cluster.Get($"/v1/jobs/{job}"))["progress"]!["step"]!;
}
