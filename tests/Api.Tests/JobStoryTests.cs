using System.Text;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using TrainingService.Domain;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Projects;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Training;
using TrainingService.Training.Throughput;

namespace TrainingService.Api.Tests;

/// <summary>What is shown of a run: the tests write the rows that a worker would write.</summary>
public abstract class JobStoryTests(ApiService service) : ApiTests(service)
{
    [Fact]
    public async Task Events_are_paged_newest_first()
    {
        var id = await CreateJob();
        await Change(id, job => Tell(job, 4));
        var (_, first) = await Get($"/v1/fine_tuning/jobs/{id}/events?limit=3");
        var (_, second) = await Get($"/v1/fine_tuning/jobs/{id}/events?limit=3&after={first["last_id"]}");
        var messages = first["data"]!.AsArray().Concat(second["data"]!.AsArray()).Select(line => (string)line!["message"]!).ToList();
        Assert.Equal(["line 3", "line 2", "line 1", "line 0"], messages[..4]);
        Assert.Equal(5, messages.Count);
        Assert.True((bool)first["has_more"]!);
        Assert.False((bool)second["has_more"]!);
        Assert.Equal("fine_tuning.job.event", (string?)first["data"]![0]!["object"]);
    }

    [Fact]
    public async Task A_stream_of_events_replays_follows_and_ends_with_the_job()
    {
        var id = await CreateJob();
        await Change(id, job => Tell(job, 2));
        using var answer = await OpenStream(id, lastEventId: null);
        Assert.Equal("text/event-stream", answer.Content.Headers.ContentType!.MediaType);
        using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Cancellation), Encoding.UTF8);
        Assert.Equal("retry: 3000", await reader.ReadLineAsync(Cancellation));
        foreach (var expected in new[] { 1, 2, 3 })
        {
            Assert.Equal(expected, await NextId(reader));
        }

        await Change(id, job => job.Cancel(TimeProvider.System.GetUtcNow()));
        Assert.Equal(4, await NextId(reader));
        var rest = await reader.ReadToEndAsync(Cancellation);
        Assert.Contains("event: done\ndata: {\"status\":\"cancelled\"}", rest, StringComparison.Ordinal);

        using var replay = await OpenStream(id, lastEventId: "2");
        var text = await replay.Content.ReadAsStringAsync(Cancellation);
        Assert.DoesNotContain("id: 2\n", text, StringComparison.Ordinal);
        Assert.Contains("id: 3\n", text, StringComparison.Ordinal);

        using var nothing = await OpenStream(id, lastEventId: "4");
        Assert.Equal(204, (int)nothing.StatusCode);
        using var wrong = await OpenStream(id, lastEventId: "x");
        Assert.Equal(400, (int)wrong.StatusCode);
    }

    [Fact]
    public async Task Both_dialects_show_what_a_run_took_and_estimates_learn_from_it()
    {
        var id = await CreateJob();
        var now = TimeProvider.System.GetUtcNow();
        await Change(id, job =>
        {
            job.Start("worker", TimeSpan.FromMinutes(1), now);
            job.Succeed($"ft:{Guid.NewGuid():N}", null, now.AddSeconds(30));
            job.Measured(Pace.Write(new RunCost("cpu", Precision.Float32, 1 << 20, 99, 10, 1e6, 2.5, null)));
        });

        foreach (var dialect in new[] { "jobs", "fine_tuning/jobs" })
        {
            var resources = (await Get($"/v1/{dialect}/{id}")).Body["resources"]!;
            Assert.Null(resources["estimate"]);
            var actual = resources["actual"]!;
            Assert.Equal(("cpu", "float32"), ((string)actual["device"]!, (string)actual["precision"]!));
            Assert.Equal((1 << 20, 99, 10), ((long)actual["memory_bytes"]!, (long)actual["artifact_bytes"]!, (int)actual["steps"]!));
            Assert.Equal((2.5, 30), ((double)actual["seconds_per_step"]!, (double)actual["seconds"]!));
        }

        var spec = JsonNode.Parse((await Get($"/v1/jobs/{id}")).Body["spec"]!.ToJsonString())!;
        var (status, estimate) = await Post("/v1/jobs/estimate", spec);
        Assert.True(status == 200, estimate.ToJsonString());
        Assert.Equal(("cpu", "float32"), ((string)estimate["device"]!, (string)estimate["precision"]!));
        Assert.True((double)estimate["seconds_per_step"]! > 0);
    }

    [Fact]
    public async Task Figures_come_as_columns()
    {
        var id = await CreateJob();
        await Add(id, jobId =>
        [
            Metric(jobId, 1, "train", """{"train/loss": 3.5, "train/learning_rate": 0.1}"""),
            Metric(jobId, 2, "train", """{"train/loss": 3.0, "train/learning_rate": 0.2}"""),
            Metric(jobId, 2, "eval", """{"eval/loss": 3.25}"""),
        ]);
        var (_, all) = await Get($"/v1/jobs/{id}/metrics");
        Assert.Equal("[1,2]", all["step"]!.ToJsonString());
        Assert.Equal("[null,3.25]", all["columns"]!["eval/loss"]!.ToJsonString());
        var (_, some) = await Get($"/v1/jobs/{id}/metrics?keys=train/loss&from_step=2");
        Assert.Equal("""{"train/loss":[3.0]}""", some["columns"]!.ToJsonString());
        var (_, sparse) = await Get($"/v1/jobs/{id}/metrics?keys=eval/loss");
        Assert.Equal("[2]", sparse["step"]!.ToJsonString());
    }

    [Fact]
    public async Task Checkpoints_carry_the_names_that_clients_know()
    {
        var id = await CreateJob();
        await Add(id, jobId => Enumerable.Range(1, 3).Select(step => (object)new JobCheckpoint
        {
            Id = Guid.CreateVersion7(),
            JobId = jobId,
            Attempt = 1,
            Step = step,
            Best = step == 3,
            MetricsJson = """{"train/loss": 1.5, "eval/loss": 2.5}""",
            StoragePrefix = "x",
            CreatedAt = TimeProvider.System.GetUtcNow().AddSeconds(step),
        }));
        var (_, first) = await Get($"/v1/fine_tuning/jobs/{id}/checkpoints?limit=2");
        Assert.Equal([3, 2], first["data"]!.AsArray().Select(row => (int)row!["step_number"]!));
        Assert.Equal(2.5, (double)first["data"]![0]!["metrics"]!["valid_loss"]!);
        Assert.Equal(1.5, (double)first["data"]![0]!["metrics"]!["train_loss"]!);
        Assert.Equal(id, (string?)first["data"]![0]!["fine_tuning_job_id"]);
        var (_, second) = await Get($"/v1/jobs/{id}/checkpoints?limit=2&after={first["last_id"]}");
        Assert.Equal([1], second["data"]!.AsArray().Select(row => (int)row!["step_number"]!));
        Assert.False((bool)second["has_more"]!);
    }

    [Fact]
    public async Task The_files_of_a_checkpoint_are_listed_and_downloaded_by_their_owner_and_nothing_else_is()
    {
        var id = await CreateJob();
        var prefix = $"tests/{id}/step-000003/";
        var checkpoint = await AddCheckpoint(id, prefix);
        var files = $"/v1/jobs/{id}/checkpoints/{checkpoint}/files";
        AssertError(await Get(files), 404, "not_found", "checkpoint");   // removed, or never complete: there is no manifest
        var weights = await Store(prefix + "adapter/adapter_model.safetensors", "weights at step 3");
        await Store(prefix + "secret", "named by nothing");
        await Store(prefix + "manifest.json", $$"""{"files":[{"path":"adapter/adapter_model.safetensors","bytes":{{weights.Bytes}},"sha256":"{{weights.Sha256}}","content_type":"application/octet-stream"}]}""");

        var (_, list) = await Get(files);

        var file = Assert.Single(list["data"]!.AsArray())!;
        Assert.Equal(("adapter/adapter_model.safetensors", weights.Bytes, weights.Sha256), ((string?)file["path"], (long)file["bytes"]!, (string?)file["sha256"]));
        Assert.Equal("weights at step 3", await Http.GetStringAsync((string)file["url"]!, Cancellation));
        foreach (var path in new[] { "secret", "adapter/..%2Fsecret", "manifest.json" })
        {
            AssertError(await Get($"{files}/{path}"), 404, "not_found", "path");
        }

        var other = await CreateJob();
        AssertError(await Get($"/v1/jobs/{other}/checkpoints/{checkpoint}/files"), 404, "not_found", "checkpoint");
        AssertError(await Get($"/v1/jobs/{id}/checkpoints/ftckpt_x/files"), 404, "not_found", "checkpoint");
        await GiveAway(id);
        AssertError(await Get(files), 404, "not_found", "checkpoint");
        AssertError(await Get($"{files}/adapter/adapter_model.safetensors"), 404, "not_found", "checkpoint");
    }

    [Fact]
    public async Task Artifacts_are_listed_and_downloaded_and_nothing_else_is()
    {
        var id = await CreateJob();
        var store = Service.Services.GetRequiredService<IArtifactStore>();
        using var content = new MemoryStream(Encoding.UTF8.GetBytes("""{"layers":[]}"""));
        var stored = await store.PutAsync($"tests/{id}/spectra.json", content, "application/json", Cancellation);
        await Add(id, jobId =>
        [
            new Artifact
            {
                Id = Guid.CreateVersion7(),
                JobId = jobId,
                Attempt = 0,
                Path = "spectra/spectra.json",
                Bytes = stored.Bytes,
                Sha256 = stored.Sha256,
                ContentType = "application/json",
                StorageKey = stored.Key,
            },
        ]);
        var (_, list) = await Get($"/v1/jobs/{id}/artifacts");
        Assert.Equal("spectra/spectra.json", (string?)list["data"]![0]!["path"]);
        Assert.Equal("""{"layers":[]}""", await Http.GetStringAsync((string)list["data"]![0]!["url"]!, Cancellation));
        Assert.Empty((await Get($"/v1/jobs/{id}/spectra")).Body["layers"]!.AsArray());
        AssertError(await Get($"/v1/jobs/{id}/artifacts/spectra/..%2F..%2Fservice.db"), 404, "not_found", "path");
        AssertError(await Get($"/v1/jobs/{id}/artifacts/none"), 404, "not_found", "path");
    }

    [Fact]
    public async Task The_evaluation_of_a_reward_model_is_served_where_there_is_one()
    {
        var id = await CreateJob();
        AssertError(await Get($"/v1/jobs/{id}/evaluation"), 404, "not_found", "id");
        var store = Service.Services.GetRequiredService<IArtifactStore>();
        using var content = new MemoryStream(Encoding.UTF8.GetBytes("""{"findings":[{"code":"prefers_longer"}]}"""));
        var stored = await store.PutAsync($"tests/{id}/reward.json", content, "application/json", Cancellation);
        await Add(id, jobId =>
        [
            new Artifact
            {
                Id = Guid.CreateVersion7(),
                JobId = jobId,
                Attempt = 0,
                Path = "evaluation/reward.json",
                Bytes = stored.Bytes,
                Sha256 = stored.Sha256,
                ContentType = "application/json",
                StorageKey = stored.Key,
            },
        ]);

        Assert.Equal("prefers_longer", (string?)(await Get($"/v1/jobs/{id}/evaluation")).Body["findings"]![0]!["code"]);
        await GiveAway(id);
        AssertError(await Get($"/v1/jobs/{id}/evaluation"), 404, "not_found", "id");
    }

    [Fact]
    public async Task A_failure_says_who_must_act()
    {
        var id = await CreateJob();
        await Change(id, job => job.Fail(new JobFailure("invalid_data", "Row 3 is empty.", "data.train:3", "last words"), TimeProvider.System.GetUtcNow()));
        var (_, job) = await Get($"/v1/fine_tuning/jobs/{id}");
        Assert.Equal("failed", (string?)job["status"]);
        Assert.Equal("invalid_data", (string?)job["error"]!["code"]);
        Assert.Equal("user", (string?)job["error"]!["responsibility"]);
        var log = await Http.GetStringAsync($"/v1/jobs/{id}/logs", Cancellation);
        Assert.Contains("Row 3 is empty.", log, StringComparison.Ordinal);
        Assert.Contains("last words", log, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("tokenizing", """{"read_bytes": 250, "total_bytes": 1000}""", 25.0)]
    [InlineData("downloading", """{"downloaded_bytes": 2000, "total_bytes": 1000}""", 100.0)]   // a file that grew
    [InlineData("calibrating", """{"read_rows": 32, "total_rows": 128}""", 25.0)]
    [InlineData("tokenizing", null, null)]
    [InlineData("training", """{"read_bytes": 250, "total_bytes": 1000}""", null)]
    public async Task How_far_a_phase_is_comes_from_the_newest_line(string phase, string? data, double? percent)
    {
        var id = await CreateJob();
        await Change(id, job =>
        {
            var now = TimeProvider.System.GetUtcNow();
            job.Start("worker", TimeSpan.FromMinutes(1), now);
            typeof(TrainingJob).GetProperty(nameof(TrainingJob.Phase))!.SetValue(job, phase);   // a worker writes it with its lease
            job.Record(EventLevel.Info, JobEvent.MessageType, "so far", data, now);
        });

        Assert.Equal(percent, (double?)(await Get($"/v1/jobs/{id}")).Body["progress"]!["phase_percent"]);
    }

    [Fact]
    public async Task The_last_lines_of_a_running_job_are_shown()
    {
        var id = await CreateJob();
        await Add(id, jobId => [new JobLog { JobId = jobId, Attempt = 1, Text = "loading the model\nstill loading" }]);
        var log = await Http.GetStringAsync($"/v1/jobs/{id}/logs", Cancellation);
        Assert.EndsWith("The training process:\nloading the model\nstill loading\n", log, StringComparison.Ordinal);
    }

    private static void Tell(TrainingJob job, int lines)
    {
        for (var i = 0; i < lines; i++)
        {
            job.Record(EventLevel.Info, JobEvent.MessageType, $"line {i}", null, TimeProvider.System.GetUtcNow());
        }
    }

    private static JobMetric Metric(Guid job, int step, string kind, string values) => new()
    {
        JobId = job,
        Step = step,
        Kind = kind,
        Attempt = 1,
        ValuesJson = values,
        CreatedAt = TimeProvider.System.GetUtcNow(),
    };

    private static async Task<long> NextId(StreamReader reader)
    {
        while (await reader.ReadLineAsync(Cancellation) is { } line)
        {
            if (line.StartsWith("id: ", StringComparison.Ordinal))
            {
                return long.Parse(line[4..], System.Globalization.CultureInfo.InvariantCulture);
            }
        }

        throw new InvalidOperationException("The stream has ended.");
    }

    /// <returns>Its public id.</returns>
    private async Task<string> AddCheckpoint(string id, string prefix)
    {
        var key = Guid.CreateVersion7();
        await Add(id, jobId =>
        [
            new JobCheckpoint
            {
                Id = key,
                JobId = jobId,
                Attempt = 1,
                Step = 3,
                Best = false,
                MetricsJson = "{}",
                StoragePrefix = prefix,
                CreatedAt = TimeProvider.System.GetUtcNow(),
            },
        ]);
        return PublicId.Of(PublicId.Checkpoint, key);
    }

    private async Task<StoredObject> Store(string key, string text)
    {
        using var content = new MemoryStream(Encoding.UTF8.GetBytes(text));
        return await Service.Services.GetRequiredService<IArtifactStore>().PutAsync(key, content, "text/plain", Cancellation);
    }

    /// <summary>Makes the job another project's.</summary>
    private async Task GiveAway(string id)
    {
        Assert.True(PublicId.TryParse(PublicId.Job, id, out var key));
        await using var db = await Service.OpenAsync();
        var project = new Project { Id = Guid.NewGuid(), Name = $"other-{Guid.NewGuid():N}", CreatedAt = TimeProvider.System.GetUtcNow() };
        db.Projects.Add(project);
        await db.SaveChangesAsync(Cancellation);
        await db.Jobs.Where(job => job.Id == key).ExecuteUpdateAsync(set => set.SetProperty(job => job.ProjectId, project.Id), Cancellation);
    }

    private async Task<HttpResponseMessage> OpenStream(string id, string? lastEventId)
    {
        var request = new HttpRequestMessage(HttpMethod.Get, $"/v1/jobs/{id}/events");
        request.Headers.Accept.ParseAdd("text/event-stream");
        if (lastEventId is not null)
        {
            request.Headers.Add("Last-Event-ID", lastEventId);
        }

        return await Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Cancellation);
    }

    private async Task Change(string id, Action<TrainingJob> change)
    {
        Assert.True(PublicId.TryParse(PublicId.Job, id, out var key));
        await using var db = await Service.OpenAsync();
        Assert.NotNull(await db.ChangeJobAsync(job => job.Id == key, change, Cancellation));
    }

    private async Task Add(string id, Func<Guid, IEnumerable<object>> rows)
    {
        Assert.True(PublicId.TryParse(PublicId.Job, id, out var key));
        await using var db = await Service.OpenAsync();
        db.AddRange(rows(key));
        await db.SaveChangesAsync(Cancellation);
    }
}

public sealed class JobStoryOnEmbeddedTests(EmbeddedApi service) : JobStoryTests(service), IClassFixture<EmbeddedApi>;

public sealed class JobStoryOnProductionTests(ProductionApi service) : JobStoryTests(service), IClassFixture<ProductionApi>;
