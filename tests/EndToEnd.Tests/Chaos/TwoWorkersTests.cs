using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using TrainingService.EndToEnd.Tests.BadInput;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>Several workers on one database: each job runs once, and one who has lost a job leaves it alone.</summary>
public sealed class TwoWorkersTests(ITestOutputHelper output)
{
    private static readonly int JobCount = ChaosScale.IsFull ? 50 : 16;

    [Fact]
    public async Task Each_of_many_jobs_runs_once()
    {
        await using var cluster = new Cluster(workers: 2, more: new Dictionary<string, string> { ["Worker__LeaseSeconds"] = "60" });
        await cluster.InitializeAsync();
        var time = Stopwatch.StartNew();
        var spec = await TinySpecAsync(cluster);
        for (var i = 0; i < JobCount; i++)
        {
            spec["seed"] = i;
            await ChaosJob.SubmitAsync(cluster, spec);
        }

        await Eventually.Async(
            async () => (await cluster.Get($"/v1/jobs?limit={JobCount}"))["data"]!.AsArray().All(job => (string)job!["status"]! is "succeeded" or "failed"),
            () => $"all jobs end\n{cluster.Logs}");
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{JobCount} jobs in {time.Elapsed.TotalSeconds:F0} s"));

        var database = cluster.DirectDatabase;
        Assert.Equal(
            [$"succeeded: {JobCount} jobs, attempts 1 to 1, tokens 1 to 1, recovered 0"],
            await Snapshot.QueryAsync(database, """
                SELECT status || ': ' || count(*) || ' jobs, attempts ' || min(attempt) || ' to ' || max(attempt)
                    || ', tokens ' || min(lease_token) || ' to ' || max(lease_token) || ', recovered ' || sum(recovery_count) FROM jobs GROUP BY status
                """));
        Assert.Equal(
            [$"queued {JobCount}", $"running {JobCount}", $"succeeded {JobCount}"],
            await Snapshot.QueryAsync(database, "SELECT status || ' ' || count(DISTINCT job_id) FROM job_transitions GROUP BY status ORDER BY 1"));
        Assert.Equal([$"{3 * JobCount}"], await Snapshot.QueryAsync(database, "SELECT count(*) FROM job_transitions"));
        Assert.Equal(
            [$"{JobCount} of {JobCount}"],
            await Snapshot.QueryAsync(
                database, "SELECT count(*) || ' of ' || count(DISTINCT job_id) FROM job_events WHERE message LIKE 'A worker has started%'"));
        Assert.Equal([$"{JobCount}"], await Snapshot.QueryAsync(database, "SELECT count(*) FROM files WHERE purpose = 'fine-tune-results'"));

        var claims = await Snapshot.QueryAsync(
            database, "SELECT reason || ' ' || count(*) FROM job_transitions WHERE status = 'running' GROUP BY reason ORDER BY 1");
        output.WriteLine(string.Join('\n', claims));
        Assert.Equal(2, claims.Count);   // both workers took part

        // One set of artifacts each, and no object that no row knows.
        var objects = (await cluster.BucketAsync()).Keys.Where(key => key.Contains("/jobs/", StringComparison.Ordinal)).ToList();
        Assert.All(objects, key => Assert.Contains("/attempt-1/", key, StringComparison.Ordinal));
        var artifacts = await Snapshot.QueryAsync(database, "SELECT storage_key FROM artifacts");
        Assert.Equal(artifacts.Count, artifacts.Distinct().Count());
        Assert.Empty(artifacts.Except(objects));
        Assert.Single(artifacts.GroupBy(key => key.Split("/attempt-1/")[0]).Select(set => set.Count()).Distinct());
        Assert.Equal(JobCount, artifacts.Count(key => key.EndsWith("/attempt-1/manifest.json", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task A_worker_that_was_stopped_past_its_lease_writes_nothing_when_it_goes_on()
    {
        await using var cluster = new Cluster(workers: 2, proxied: true);
        await cluster.InitializeAsync();
        var data = await ChaosJob.UploadAsync(cluster);
        var seeds = UndisturbedRun.Seeds;

        // The first one stands still in the middle of its training, the second one at the start of its final upload.
        var training = await ChaosJob.SubmitAsync(cluster, ChaosJob.Spec(cluster, data, seeds[0]));
        var first = await OwnerAsync(cluster, training);
        var stopped = await StopAsync(cluster, first, async () => (int)(await cluster.Get($"/v1/jobs/{training}"))["progress"]!["step"]! >= 5);
        var uploading = await ChaosJob.SubmitAsync(cluster, ChaosJob.Spec(cluster, data, seeds[1]));
        var second = 1 - first;
        await Eventually.Async(
            async () => await OwnerAsync(cluster, uploading) == second && cluster.HasCompleteRun(second),
            () => $"the second worker runs {uploading} to its end\n{cluster.Logs}");
        cluster.Store.Blackhole();
        stopped = [.. stopped, .. await StopAsync(cluster, second, () => Task.FromResult(true))];
        cluster.Store.Pass();

        cluster.StartWorker(2);
        foreach (var job in new[] { training, uploading })
        {
            var state = await cluster.WaitForEnd(job);
            Assert.True((string)state["status"]! == "succeeded", $"{state}\n{cluster.Logs}");
            Assert.True((int)state["attempt"]! > 1);
        }

        var (rows, objects) = (await Snapshot.OfDatabaseAsync(cluster.DirectDatabase), await cluster.BucketAsync());
        foreach (var process in stopped)
        {
            RunningProcesses.Send(process, Signal.Continue);
        }

        // Both find out, end what they were doing and clean up; then they have every chance to do harm.
        await Eventually.Async(
            () => cluster.TrainingProcesses.Count == 0 && cluster.Attempts(0).Count + cluster.Attempts(1).Count == 0,
            () => $"the workers that were stopped give their jobs up\n{cluster.Logs}");
        await Task.Delay(TimeSpan.FromSeconds(10));
        Assert.Equal(rows, await Snapshot.OfDatabaseAsync(cluster.DirectDatabase));
        Assert.Equal(objects, await cluster.BucketAsync());
        Assert.False(cluster.Worker(0).HasExited || cluster.Worker(1).HasExited, cluster.Logs);

        foreach (var (job, seed) in new[] { training, uploading }.Zip(seeds))
        {
            ChaosJob.AssertSame(await UndisturbedRun.ResultAsync(seed), await ChaosJob.ResultAsync(cluster, job), job);
        }
    }

    /// <summary>Stops a worker and its training process once a condition holds, and returns what stands still.</summary>
    private static async Task<IReadOnlyList<int>> StopAsync(Cluster cluster, int worker, Func<Task<bool>> when)
    {
        await Eventually.Async(when, () => $"the moment to stop worker {worker}\n{cluster.Logs}");
        IReadOnlyList<int> processes = [cluster.Worker(worker).Id, .. cluster.Worker(worker).TrainingProcesses];
        foreach (var process in processes)
        {
            RunningProcesses.Send(process, Signal.Stop);
        }

        return processes;
    }

    /// <summary>Number of the worker that runs a job.</summary>
    private static async Task<int> OwnerAsync(Cluster cluster, string job)
    {
        var owner = -1;
        await Eventually.Async(
            async () =>
            {
                var names = await Snapshot.QueryAsync(
                    cluster.DirectDatabase, $"SELECT lease_owner FROM jobs WHERE status = 'running' AND id = '{Guid.Parse(job.Split('-')[1])}'");
                owner = names.Count == 0 ? -1 : Enumerable.Range(0, 2).First(number => names[0].EndsWith($":{cluster.Worker(number).Id}", StringComparison.Ordinal));
                return owner >= 0;
            },
            () => $"{job} is claimed\n{cluster.Logs}");
        return owner;
    }

    /// <summary>One step of a model of a few kilobytes.</summary>
    private static async Task<JsonObject> TinySpecAsync(Cluster cluster)
    {
        var folder = Path.Combine(cluster.DataFolder, "tiny");
        TinyModel.Write(folder);
        var model = await cluster.Post("/v1/models", new JsonObject { ["name"] = "tiny", ["path"] = folder });
        var rows = Path.Combine(folder, "rows.jsonl");
        await File.WriteAllLinesAsync(rows, Enumerable.Range(0, 4).Select(row => $$"""{"input_ids": [{{string.Join(", ", Enumerable.Range(row, 8))}}]}"""));
        return new JsonObject
        {
            ["model"] = (string)model["id"]!,
            ["data"] = new JsonObject { ["train"] = await cluster.Upload(rows), ["max_length"] = 16 },
            ["adapter"] = new JsonObject { ["type"] = "lora", ["rank"] = 1 },
            ["schedule"] = new JsonObject { ["max_steps"] = 1, ["batch_size"] = 1 },
            ["spectra"] = new JsonObject { ["enabled"] = false },
        };
    }
}
