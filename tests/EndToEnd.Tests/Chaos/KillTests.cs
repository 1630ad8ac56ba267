using System.Diagnostics;
using System.Globalization;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>
/// <c>kill -9</c> at random moments: no job is lost, and each ends in the bytes of a run that nothing happened to.
/// <c>scripts/chaos.sh kills 200</c> makes the long variant.
/// </summary>
public sealed class KillTests(ITestOutputHelper output)
{
    private static readonly string[] Final = ["succeeded", "failed", "cancelled"];

    private static int Kills => Setting("TRAINING_CHAOS_KILLS", 30);

    [Fact]
    public async Task Training_processes_workers_and_the_API_may_be_killed_at_any_moment()
    {
        var round = new Round(output, Setting("TRAINING_CHAOS_SEED", Random.Shared.Next()));
        await using var cluster = new Cluster(workers: 2);
        await cluster.InitializeAsync();
        var jobs = new Jobs(cluster, await ChaosJob.UploadAsync(cluster), output);

        var kills = Kills - EmbeddedKills;
        var killed = new Dictionary<string, int> { ["training process"] = 0, ["worker"] = 0, ["API"] = 0 };
        while (killed.Values.Sum() < kills)
        {
            await jobs.KeepBusyAsync(3);
            await round.PauseAsync(0.2, 2);
            switch (round.Next(10))
            {
                case < 5 when cluster.TrainingProcesses is { Count: > 0 } processes:
                    RunningProcesses.Send(processes[round.Next(processes.Count)], Signal.Kill);
                    killed["training process"]++;
                    break;
                case 5 or 6 or 7:
                    var number = round.Next(2);
                    await cluster.KillWorkerAsync(number);
                    await round.PauseAsync(0, 0.5);
                    cluster.StartWorker(number);
                    killed["worker"]++;
                    break;
                case > 7:
                    await cluster.RestartApiAsync();
                    killed["API"]++;
                    break;
                default:
                    break;   // no training process lives at this moment
            }

            round.Say(killed);
        }

        await jobs.AssertAllEndedWellAsync();
        round.Say(killed);
    }

    [Fact]
    public async Task The_embedded_service_may_be_killed_right_after_it_has_accepted_a_job()
    {
        var round = new Round(output, Setting("TRAINING_CHAOS_SEED", Random.Shared.Next()));
        await using var service = new SingleProcess();
        await service.InitializeAsync();
        var jobs = new Jobs(service, await ChaosJob.UploadAsync(service), output);

        var killed = new Dictionary<string, int> { ["service"] = 0 };
        for (; killed["service"] < EmbeddedKills; killed["service"]++)
        {
            await jobs.KeepBusyAsync(2);

            // Half of them the moment the last 201 is there, the other half later.
            await round.PauseAsync(0, killed["service"] % 2 == 0 ? 0 : 4);
            await service.RestartAsync();
            round.Say(killed);
        }

        await jobs.AssertAllEndedWellAsync();
        round.Say(killed);
    }

    /// <summary>A fifth of all, on the profile that has one process only.</summary>
    private static int EmbeddedKills => Kills / 5;

    private static int Setting(string name, int standard) =>
        int.TryParse(Environment.GetEnvironmentVariable(name), CultureInfo.InvariantCulture, out var value) ? value : standard;

    /// <summary>The chances of one test, repeatable as far as a machine is.</summary>
    private sealed class Round
    {
        private readonly Random _random;
        private readonly ITestOutputHelper _output;
        private readonly Stopwatch _time = Stopwatch.StartNew();

        public Round(ITestOutputHelper output, int seed)
        {
            _random = new Random(seed);
            _output = output;
            output.WriteLine($"TRAINING_CHAOS_SEED={seed}");
        }

        public int Next(int below) => _random.Next(below);

        public Task PauseAsync(double from, double to) => Task.Delay(TimeSpan.FromSeconds(from + (_random.NextDouble() * (to - from))));

        public void Say(IReadOnlyDictionary<string, int> killed) => _output.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{_time.Elapsed.TotalSeconds,6:F1} s  killed: {string.Join(", ", killed.Select(pair => $"{pair.Key} {pair.Value}"))}"));
    }

    /// <summary>The jobs that a test has been promised.</summary>
    private sealed class Jobs(RunningService service, (string Train, string Validation) data, ITestOutputHelper output)
    {
        private readonly List<(string Id, int Seed)> _accepted = [];

        /// <summary>Submits jobs until so many have not ended.</summary>
        public async Task KeepBusyAsync(int count)
        {
            var open = 0;
            foreach (var (id, _) in _accepted)
            {
                var status = (string)(await service.Get($"/v1/jobs/{id}"))["status"]!;
                open += Final.Contains(status) ? 0 : 1;
            }

            for (; open < count; open++)
            {
                var seed = UndisturbedRun.Seeds[_accepted.Count % UndisturbedRun.Seeds.Count];
                _accepted.Add((await ChaosJob.SubmitAsync(service, ChaosJob.Spec(service, data, seed)), seed));
            }
        }

        public async Task AssertAllEndedWellAsync()
        {
            foreach (var (id, seed) in _accepted)
            {
                var state = await service.WaitForEnd(id);
                Assert.True((string)state["status"]! == "succeeded", $"{state}\n{service.Logs}");
                var result = await ChaosJob.ResultAsync(service, id);
                output.WriteLine($"{id}: attempt {state["attempt"]}, worker lost {state["recovery_count"]} times, {result.Count} results compared");
                ChaosJob.AssertSame(await UndisturbedRun.ResultAsync(seed), result, $"{id}, attempt {state["attempt"]}");
            }
        }
    }
}
