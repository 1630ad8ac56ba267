using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Text.Json.Nodes;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>
/// Postgres away, the S3 server away, both: one job is in the middle of its training then, another one at its final upload. Both
/// survive, and nothing is doubled. CI takes both away at once; <c>scripts/chaos.sh outages</c> each alone as well, for two minutes.
/// </summary>
public sealed class OutageTests(ITestOutputHelper output)
{
    /// <summary>Much longer than the lease of three seconds.</summary>
    private static readonly TimeSpan Away = TimeSpan.FromSeconds(
        double.TryParse(Environment.GetEnvironmentVariable("TRAINING_CHAOS_OUTAGE_SECONDS"), CultureInfo.InvariantCulture, out var seconds) ? seconds : 15);

    private const int LongerSteps = 120;

    [Fact]
    public Task Nothing_is_lost_or_doubled_while_servers_are_away() => Task.WhenAll(
        ChaosScale.IsFull ? SurvivesAsync("Postgres", database: true, store: false) : Task.CompletedTask,
        ChaosScale.IsFull ? SurvivesAsync("S3", database: false, store: true) : Task.CompletedTask,
        SurvivesAsync("Postgres and S3", database: true, store: true));

    private async Task SurvivesAsync(string name, bool database, bool store)
    {
        await using var cluster = new Cluster(workers: 1, proxied: true, new Dictionary<string, string> { ["Worker__Concurrency"] = "2" });
        await cluster.InitializeAsync();
        var data = await ChaosJob.UploadAsync(cluster);
        var seeds = UndisturbedRun.Seeds;
        string[] jobs = [
            await ChaosJob.SubmitAsync(cluster, ChaosJob.Spec(cluster, data, seeds[0])),
            await ChaosJob.SubmitAsync(cluster, LongerSpec(cluster, data)),
        ];
        await Eventually.Async(
            () => cluster.HasCompleteRun(0),
            () => $"{name}: the first job comes to its final upload\n{cluster.Logs}");
        var before = await StatesAsync(cluster, jobs);

        // One server alone refuses connections; both at once swallow what they are sent, as behind a broken network.
        Action<TcpProxy> away = database && store ? proxy => proxy.Blackhole() : proxy => proxy.Refuse();
        if (database)
        {
            away(cluster.Database);
        }

        if (store)
        {
            away(cluster.Store);
        }

        var time = Stopwatch.StartNew();
        await AssertUnavailableAsync(cluster, name, jobs[0], database);
        await Task.Delay(Away - time.Elapsed is { Ticks: > 0 } rest ? rest : TimeSpan.Zero);
        cluster.Database.Pass();
        cluster.Store.Pass();
        var back = Stopwatch.StartNew();
        await cluster.WaitUntilReady();
        var ready = back.Elapsed;

        foreach (var job in jobs)
        {
            var state = await cluster.WaitForEnd(job);
            Assert.True((string)state["status"]! == "succeeded", $"{name}: {state}\n{cluster.Logs}");
        }

        var attempts = await AttemptsAsync(cluster);
        output.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{name} away for {Away.TotalSeconds:F0} s ({before}): ready again after {ready.TotalSeconds:F1} s, both jobs had succeeded after {back.Elapsed.TotalSeconds:F1} s, attempts {attempts}"));
        await AssertNothingDoubledAsync(cluster, jobs);
        ChaosJob.AssertSame(await UndisturbedRun.ResultAsync(seeds[0]), await ChaosJob.ResultAsync(cluster, jobs[0]), $"{name}: {jobs[0]}");
    }

    /// <summary>Long enough to be in the middle of its training when the first job has ended its own.</summary>
    private static JsonObject LongerSpec(RunningService service, (string Train, string Validation) data)
    {
        var spec = ChaosJob.Spec(service, data, UndisturbedRun.Seeds[1], LongerSteps);
        spec["evaluation"]!["every_steps"] = 60;
        spec["checkpoints"]!["every_steps"] = 15;
        return spec;
    }

    /// <summary>The API says what is wrong in its own words, and is alive.</summary>
    private static async Task AssertUnavailableAsync(Cluster cluster, string name, string job, bool database)
    {
        using var live = await cluster.Http.GetAsync(new Uri("/health/live", UriKind.Relative));
        Assert.Equal(HttpStatusCode.OK, live.StatusCode);
        await cluster.WaitUntilNotReady();

        using var answer = database
            ? await cluster.Http.GetAsync(new Uri($"/v1/jobs/{job}", UriKind.Relative))
            : await UploadAsync(cluster);
        var body = await answer.Content.ReadAsStringAsync();
        Assert.True(answer.StatusCode == HttpStatusCode.ServiceUnavailable, $"{name}: {(int)answer.StatusCode} {body}");
        var error = JsonNode.Parse(body)!["error"]!;
        Assert.False(string.IsNullOrEmpty((string?)error["message"]), body);
        Assert.Equal("server_error", (string?)error["type"]);
    }

    private static async Task<HttpResponseMessage> UploadAsync(Cluster cluster)
    {
        using var form = new MultipartFormDataContent
        {
            { new StringContent("fine-tune"), "purpose" },
            { new StringContent("""{"prompt": "a", "completion": "b"}"""), "file", "rows.jsonl" },
        };
        return await cluster.Http.PostAsync(new Uri("/v1/files", UriKind.Relative), form);
    }

    private static async Task<string> StatesAsync(Cluster cluster, IEnumerable<string> jobs)
    {
        var states = new List<string>();
        foreach (var job in jobs)
        {
            var state = await cluster.Get($"/v1/jobs/{job}");
            states.Add($"{state["phase"] ?? state["status"]} at step {state["progress"]!["step"]}");
        }

        return string.Join(", ", states);
    }

    private static async Task<string> AttemptsAsync(Cluster cluster) => string.Join(
        ", ", await Snapshot.QueryAsync(cluster.DirectDatabase, "SELECT attempt || ' (' || recovery_count || ' recovered)' FROM jobs ORDER BY created_at"));

    private static async Task AssertNothingDoubledAsync(Cluster cluster, string[] jobs)
    {
        var database = cluster.DirectDatabase;
        Task<IReadOnlyList<string>> Count(string sql) => Snapshot.QueryAsync(database, sql);
        Assert.Equal([jobs.Length.ToString(CultureInfo.InvariantCulture)], await Count("SELECT count(*) FROM files WHERE purpose = 'fine-tune-results'"));
        Assert.Equal(["0"], await Count("SELECT count(*) - count(DISTINCT (job_id, path)) FROM artifacts"));
        Assert.Equal(["0"], await Count("SELECT count(*) - count(DISTINCT (job_id, sequence)) FROM job_events"));
        Assert.Equal(["0"], await Count("SELECT count(*) - count(DISTINCT (job_id, attempt, step)) FROM job_checkpoints"));
        Assert.Equal(["0"], await Count("SELECT count(*) - count(DISTINCT fine_tuned_model) FROM jobs"));
        Assert.Equal(["succeeded 2"], await Count("SELECT status || ' ' || count(*) FROM job_transitions WHERE status IN ('succeeded', 'failed', 'cancelled') GROUP BY status"));

        // No gap: numbers are handed out once and each is used.
        Assert.Equal(["0"], await Count("SELECT sum(j.last_event_sequence - (SELECT count(*) FROM job_events e WHERE e.job_id = j.id)) FROM jobs j"));
        Assert.Equal(
            ["24", $"{LongerSteps}"], await Count("SELECT count(*)::text FROM job_metrics WHERE kind = 'train' GROUP BY job_id ORDER BY count(*)"));
    }
}
