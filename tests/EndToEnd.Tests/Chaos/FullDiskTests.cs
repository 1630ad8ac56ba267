using System.Globalization;
using System.Net;
using System.Text.Json.Nodes;
using Npgsql;
using TrainingService.EndToEnd.Tests.Infrastructure;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>No space left: the failure says so, the service lives, and goes on by itself when there is space again.</summary>
public sealed class FullDiskTests(ITestOutputHelper output)
{
    [Fact]
    public async Task In_the_cache_and_in_the_work_folder()
    {
        await using var disk = await SmallDisk.MountAsync(48);
        await using var cluster = new Cluster(workers: 1, more: new Dictionary<string, string> { ["Worker__RetrySeconds"] = "0.5", ["Worker__StorePatienceSeconds"] = "1" }, workFolder: disk.Folder);
        await cluster.InitializeAsync();
        var data = await ChaosJob.UploadAsync(cluster);
        var seed = UndisturbedRun.Seeds[0];

        disk.Fill();   // the rows do not fit in the cache
        var job = await ChaosJob.SubmitAsync(cluster, ChaosJob.Spec(cluster, data, seed));
        await AssertSentBackAsync(cluster, job, times: 1);
        disk.Empty();

        await Eventually.Async(
            async () => (int)(await cluster.Get($"/v1/jobs/{job}"))["progress"]!["step"]! >= 3, () => $"the job trains\n{cluster.Logs}");
        disk.Fill();   // the next checkpoint does not fit in the work folder
        await AssertSentBackAsync(cluster, job, times: 2);
        disk.Empty();

        var end = await cluster.WaitForEnd(job);
        Assert.True((string)end["status"]! == "succeeded", $"{end}\n{cluster.Logs}");
        Assert.False(cluster.Worker(0).HasExited, cluster.Logs);
        ChaosJob.AssertSame(await UndisturbedRun.ResultAsync(seed), await ChaosJob.ResultAsync(cluster, job), "a job that met a full disk twice");
    }

    [Fact]
    public async Task In_the_data_folder_of_the_embedded_service()
    {
        await using var disk = await SmallDisk.MountAsync(32);
        await using var service = new SingleProcess(dataFolder: disk.Folder);
        await service.InitializeAsync();
        await FillAndEmptyAsync(service, disk, ownDisk: true);
    }

    [Fact]
    public async Task In_Postgres()
    {
        await using var disk = await SmallDisk.MountAsync(32);
        await disk.GiveToAsync("postgres");
        var tablespace = $"small{Guid.NewGuid():N}";
        await Snapshot.QueryAsync(TestNeeds.Postgres, $"CREATE TABLESPACE {tablespace} LOCATION '{disk.Folder}'");
        try
        {
            await using var cluster = new Cluster(workers: 1, tablespace: tablespace);
            await cluster.InitializeAsync();
            await FillAndEmptyAsync(cluster, disk, ownDisk: false);
        }
        finally
        {
            NpgsqlConnection.ClearAllPools();
            await Snapshot.QueryAsync(TestNeeds.Postgres, $"DROP TABLESPACE {tablespace}");
        }
    }

    /// <summary>The database's disk is full while a job trains and others are asked for.</summary>
    /// <param name="ownDisk">Whether the disk is the service's own, so that its readiness sees it; a server's disk shows when it is written to.</param>
    private async Task FillAndEmptyAsync(RunningService service, SmallDisk disk, bool ownDisk)
    {
        var data = await ChaosJob.UploadAsync(service);
        var seed = UndisturbedRun.Seeds[1];
        var job = await ChaosJob.SubmitAsync(service, ChaosJob.Spec(service, data, seed));
        await Eventually.Async(
            async () => (int)(await service.Get($"/v1/jobs/{job}"))["progress"]!["step"]! >= 3, () => $"the job trains\n{service.Logs}");
        disk.Fill();

        var (status, body) = await UploadUntilRefusedAsync(service);
        output.WriteLine($"{(int)status} {body}");
        Assert.Equal(HttpStatusCode.InsufficientStorage, status);
        Assert.Contains("no room left", (string)JsonNode.Parse(body)!["error"]!["message"]!, StringComparison.Ordinal);
        using (var live = await service.Http.GetAsync(new Uri("/health/live", UriKind.Relative)))
        {
            Assert.Equal(HttpStatusCode.OK, live.StatusCode);
        }

        if (ownDisk)
        {
            output.WriteLine(await service.WaitUntilNotReady());
        }

        disk.Empty();
        await service.WaitUntilReady();
        var next = await ChaosJob.SubmitAsync(service, ChaosJob.Spec(service, data, seed, steps: 2));
        foreach (var id in new[] { job, next })
        {
            var end = await service.WaitForEnd(id);
            Assert.True((string)end["status"]! == "succeeded", $"{end}\n{service.Logs}");
        }

        ChaosJob.AssertSame(await UndisturbedRun.ResultAsync(seed), await ChaosJob.ResultAsync(service, job), "a job whose database was full");
    }

    /// <summary>Small rows find room in pages that exist already, so it may take a few.</summary>
    private static async Task<(HttpStatusCode Status, string Body)> UploadUntilRefusedAsync(RunningService service)
    {
        for (var i = 0; i < 500; i++)
        {
            using var form = new MultipartFormDataContent
            {
                { new StringContent("fine-tune"), "purpose" },
                { new StringContent("""{"prompt": "a", "completion": "b"}"""), "file", string.Create(CultureInfo.InvariantCulture, $"rows-{i}.jsonl") },
            };
            using var answer = await service.Http.PostAsync(new Uri("/v1/files", UriKind.Relative), form);
            if (!answer.IsSuccessStatusCode)
            {
                return (answer.StatusCode, await answer.Content.ReadAsStringAsync());
            }
        }

        throw new InvalidOperationException($"Five hundred files found room on a full disk.\n{service.Logs}");
    }

    /// <summary>The job waits for another attempt, and its story says why.</summary>
    private static async Task AssertSentBackAsync(Cluster cluster, string job, int times)
    {
        var messages = new List<string>();
        await Eventually.Async(
            async () =>
            {
                var events = (await cluster.Get($"/v1/jobs/{job}/events?limit=1000"))["data"]!.AsArray();
                messages = [.. events.Select(line => (string)line!["message"]!).Where(text => text.StartsWith("The job is back in the queue: storage: ", StringComparison.Ordinal))];
                return messages.Count >= times;
            },
            () => $"the job goes back in the queue for a full disk\n{cluster.Logs}");
        Assert.All(messages, message => Assert.Contains("full", message, StringComparison.Ordinal));
    }
}
