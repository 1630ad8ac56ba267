using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using TrainingService.Domain;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Models;
using TrainingService.Domain.Projects;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Tests;
using TrainingService.Training;
using TrainingService.Training.Throughput;
using TrainingService.Worker;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>The supervisor on the embedded profile, with a shell script in the place of the training process.</summary>
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
public sealed class SupervisorTests : SupervisedWorker
{
    [Fact]
    public async Task A_run_leaves_metrics_checkpoint_artifacts_and_results()
    {
        await StartAsync(Succeed);
        var id = await SubmitAsync();

        var job = await EndOfAsync(id);

        Assert.Equal((JobStatus.Succeeded, null), (job.Status, job.Failure?.Message));
        Assert.Matches("^ft:tiny:default:mine:[a-z0-9]{8}$", job.FineTunedModel);
        Assert.Equal((1, 1, 4L, 1), (job.Step, job.TotalSteps, job.TrainedTokens, job.Attempt));
        await using var db = await OpenAsync();
        Assert.Equal(["eval", "train"], await db.Metrics.OrderBy(m => m.Kind).Select(m => m.Kind).ToListAsync(Cancel));
        var checkpoint = await db.Checkpoints.SingleAsync(Cancel);
        Assert.Equal((1, true), (checkpoint.Step, checkpoint.Best));
        var artifacts = await db.Artifacts.ToDictionaryAsync(a => a.Path, Cancel);
        Assert.Subset(
            artifacts.Keys.ToHashSet(),
            new HashSet<string> { "adapter/adapter_model.safetensors", "metrics/results.csv", "spec.json", "logs/train.log", "manifest.json" });
        Assert.Equal("weights\n", await ReadAsync(artifacts["adapter/adapter_model.safetensors"].StorageKey));
        Assert.Contains("\"train\": \"file-", await ReadAsync(artifacts["spec.json"].StorageKey), StringComparison.Ordinal);
        var results = await db.Files.SingleAsync(f => f.Id == job.ResultFileId, Cancel);
        Assert.Equal(("fine-tune-results", "step,train_loss\n"), (results.Purpose, await ReadAsync(results.StorageKey)));
        var events = await db.Events.Where(e => e.JobId == id).OrderBy(e => e.Sequence).ToListAsync(Cancel);
        Assert.Equal(Enumerable.Range(1, events.Count).Select(n => (long)n), events.Select(e => e.Sequence));
        Assert.Contains(events, e => e.Type == JobEvent.MetricsType && e.DataJson!.Contains("\"valid_loss\":2.25", StringComparison.Ordinal));
        Assert.Empty(Directory.GetDirectories(Path.Combine(Folder, "worker", "jobs")));
    }

    [Fact]
    public async Task A_run_leaves_what_it_should_take_and_what_it_took()
    {
        await StartAsync(Succeed);

        var job = await EndOfAsync(await SubmitAsync());

        Assert.Equal(new RunCost("cpu", Precision.Float32, 900, 8, 1, 50, null, null), Pace.Read(job.EstimatedCostJson!));
        Assert.Equal(new RunCost("cpu", Precision.Float32, 1000, "weights\n".Length, 1, 50, 0.25, null), Pace.Read(job.ActualCostJson!));
    }

    [Fact]
    public async Task The_child_sees_local_paths_and_none_of_the_services_secrets()
    {
        Environment.SetEnvironmentVariable("S3__SecretKey", "hush");
        Environment.SetEnvironmentVariable("ConnectionStrings__Postgres", "hush");
        await StartAsync($$"""
            env > {{Folder}}/env.txt
            cp $spec {{Folder}}/spec.txt
            {{Succeed}}
            """);
        await EndOfAsync(await SubmitAsync());

        Assert.DoesNotContain("hush", await File.ReadAllTextAsync(Path.Combine(Folder, "env.txt"), Cancel), StringComparison.Ordinal);
        using var spec = JsonDocument.Parse(await File.ReadAllTextAsync(Path.Combine(Folder, "spec.txt"), Cancel));
        var train = spec.RootElement.GetProperty("data").GetProperty("train").GetString()!;
        Assert.EndsWith("train.jsonl", train, StringComparison.Ordinal);
        Assert.Equal("{\"text\":\"hello\"}\n", await File.ReadAllTextAsync(train, Cancel));
        Assert.Equal(Path.Combine(Folder, "model"), spec.RootElement.GetProperty("model").GetString());
    }

    [Fact]
    public async Task A_cancel_request_stops_the_child_within_seconds()
    {
        await StartAsync("""
            echo '{"type":"phase","phase":"training"}'
            read command
            echo "heard $command" >&2
            exit 4
            """);
        var id = await SubmitAsync();
        await UntilAsync(id, job => job.Phase == "training");
        var asked = TimeProvider.System.GetTimestamp();
        await CancelAsync(id);

        var job = await EndOfAsync(id);

        Assert.Equal(JobStatus.Cancelled, job.Status);
        Assert.True(TimeProvider.System.GetElapsedTime(asked) < TimeSpan.FromSeconds(5));
        await using var db = await OpenAsync();
        Assert.Contains("heard cancel", await ReadAsync((await db.Artifacts.SingleAsync(Cancel)).StorageKey), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_child_that_does_not_obey_is_killed()
    {
        await StartAsync("echo '{\"type\":\"phase\",\"phase\":\"training\"}'; trap '' TERM; exec sleep 600", ("Worker:CancelGraceSeconds", "0.5"));
        var id = await SubmitAsync();
        await UntilAsync(id, job => job.Phase == "training");
        await CancelAsync(id);

        Assert.Equal(JobStatus.Cancelled, (await EndOfAsync(id)).Status);
    }

    [Theory]
    [InlineData("echo '{\"type\":\"failed\",\"code\":\"invalid_data\",\"message\":\"Row 3 is bad.\",\"param\":\"train:3\"}'; exit 1", "invalid_data", "train:3")]
    [InlineData("echo 'RuntimeError: std::bad_alloc' >&2; kill -6 $$", "out_of_memory", "schedule.batch_size")]
    [InlineData("sleep 60", "timeout", "schedule")]
    public async Task Failures_of_the_user_end_the_job_at_once(string child, string code, string? param)
    {
        await StartAsync("echo 'last words' >&2; " + child, ("Worker:MaxRunSeconds", "2"), ("Worker:PauseGraceSeconds", "0"));

        var job = await EndOfAsync(await SubmitAsync());

        Assert.Equal((JobStatus.Failed, code, param, 1), (job.Status, job.Failure!.Code, job.Failure.Param, job.Attempt));
        Assert.Equal(Responsibility.User, job.Failure.Responsibility);
        Assert.True(code == "timeout" || job.Failure.LogTail!.StartsWith("last words", StringComparison.Ordinal));
    }

    [Fact]
    public async Task The_time_of_earlier_attempts_counts_towards_max_run_seconds()
    {
        await StartAsync(
            $$"""
            [ -e {{Folder}}/again ] && exec sleep 600
            touch {{Folder}}/again
            echo '{"type":"phase","phase":"training"}'
            until [ -e {{Folder}}/crash ]; do sleep 0.05; done
            kill -11 $$
            """,
            ("Worker:RetrySeconds", "0"), ("Worker:PauseGraceSeconds", "0"));
        var id = await SubmitAsync(maxRunSeconds: 30);
        await UntilAsync(id, job => job.Phase == "training");
        await using var db = await OpenAsync();
        var began = (await JobAsync(id)).AttemptStartedAt!.Value.AddSeconds(-29);   // the first attempt has taken nearly all the time
        await db.Jobs.Where(j => j.Id == id).ExecuteUpdateAsync(set => set.SetProperty(j => j.AttemptStartedAt, began), Cancel);
        await File.WriteAllTextAsync(Path.Combine(Folder, "crash"), "", Cancel);

        var job = await EndOfAsync(id);

        Assert.Equal((JobStatus.Failed, FailureCodes.Timeout, "max_run_seconds", 2), (job.Status, job.Failure!.Code, job.Failure.Param, job.Attempt));
        var second = job.FinishedAt!.Value - job.History.Last(move => move.Status == JobStatus.Running).At;
        Assert.True(second < TimeSpan.FromSeconds(20), $"The second attempt ran for {second}, with a second left.");
        Assert.True(job.RunSeconds >= 29, $"{job.RunSeconds} s");
    }

    [Fact]
    public async Task A_full_store_holds_the_result_up_and_costs_nothing()
    {
        await using var disk = await MountedFolder.MountAsync(Path.Combine(Folder, "artifacts"), "256k");
        var filler = Path.Combine(Folder, "artifacts", "filler");
        await StartAsync($$"""
            head -c 300000 /dev/zero > {{filler}} 2> /dev/null || true
            {{Succeed}}
            """);
        var id = await SubmitAsync();

        await UntilAsync(id, job => job.Phase == "uploading");
        await Task.Delay(1000, Cancel);   // several tries
        var waiting = await JobAsync(id);
        Assert.Equal((JobStatus.Running, "uploading", 0), (waiting.Status, waiting.Phase, waiting.FailureCount));
        File.Delete(filler);

        var job = await EndOfAsync(id);
        Assert.Equal((JobStatus.Succeeded, 1, 0), (job.Status, job.Attempt, job.FailureCount));
        await using var db = await OpenAsync();
        var weights = await db.Artifacts.SingleAsync(a => a.Path == "adapter/adapter_model.safetensors", Cancel);
        Assert.Equal("weights\n", await ReadAsync(weights.StorageKey));
    }

    [Fact]
    public async Task The_last_lines_of_the_log_are_known_while_the_job_runs()
    {
        await StartAsync($$"""
            echo '{"type":"phase","phase":"training"}'
            for i in $(seq 300); do echo "line $i" >&2; done
            until [ -e {{Folder}}/go ]; do sleep 0.05; done
            echo 'line 301' >&2
            {{Succeed}}
            """);
        var id = await SubmitAsync();
        await using var db = await OpenAsync();
        string? text = null;
        await UntilAsync(id, job =>
        {
            text = db.Logs.AsNoTracking().SingleOrDefault(log => log.JobId == id)?.Text;
            return text is not null && text.EndsWith("line 300", StringComparison.Ordinal);
        });
        Assert.Equal(Enumerable.Range(101, 200).Select(i => $"line {i}"), text!.Split('\n'));
        await File.WriteAllTextAsync(Path.Combine(Folder, "go"), "", Cancel);

        Assert.Equal(JobStatus.Succeeded, (await EndOfAsync(id)).Status);
        Assert.EndsWith("\nline 301", (await db.Logs.AsNoTracking().SingleAsync(Cancel)).Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_crash_gets_further_attempts_and_then_fails_with_the_log()
    {
        await StartAsync("echo 'segmentation fault' >&2; kill -11 $$", ("Worker:RetrySeconds", "0"), ("Worker:MaxAttempts", "2"));

        var job = await EndOfAsync(await SubmitAsync());

        Assert.Equal((JobStatus.Failed, FailureCodes.Internal, 2), (job.Status, job.Failure!.Code, job.Attempt));
        Assert.Contains("segmentation fault", job.Failure.LogTail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Shutdown_saves_and_gives_the_job_back_and_the_next_start_goes_on()
    {
        await StartAsync($$"""
            if [ -e {{Folder}}/again ]; then
            test -e $work/checkpoints/step-000001/adapter/adapter_model.safetensors || { echo 'no checkpoint' >&2; exit 1; }
            rm -r $work/checkpoints
            {{Succeed}}
            exit 0; fi
            touch {{Folder}}/again
            echo '{"type":"phase","phase":"training"}'
            read command
            [ "$command" = checkpoint-and-stop ] || exit 1
            {{Succeed.Replace("echo '{\"type\":\"done\"", "exit 3; echo '{\"type\":\"done\"")}}
            """);
        var id = await SubmitAsync();
        await UntilAsync(id, job => job.Phase == "training");
        await TheHost.StopAsync(Cancel);
        Assert.Equal(JobStatus.Queued, (await JobAsync(id)).Status);
        TheHost.Dispose();

        await StartHostAsync();

        var job = await EndOfAsync(id);
        Assert.Equal((JobStatus.Succeeded, 2, 0), (job.Status, job.Attempt, job.RecoveryCount));
    }

    [Fact]
    public async Task A_worker_that_lost_its_lease_stops_the_child_and_writes_nothing()
    {
        await StartAsync("""
            echo '{"type":"phase","phase":"training"}'
            read command
            echo '{"type":"done","steps":1,"trained_tokens":4,"metrics":{}}'
            """, ("Reconciler:IntervalSeconds", "3600"));
        var id = await SubmitAsync();
        await UntilAsync(id, job => job.Phase == "training");
        await using var db = await OpenAsync();
        await db.Jobs.Where(j => j.Id == id).ExecuteUpdateAsync(s => s.SetProperty(j => j.LeaseToken, j => j.LeaseToken + 1), Cancel);
        var jobs = Path.Combine(Folder, "worker", "jobs");

        while (Directory.GetDirectories(jobs).Length > 0)
        {
            await Task.Delay(50, Cancel);
        }

        Assert.Equal((JobStatus.Running, 2L), ((await JobAsync(id)).Status, (await JobAsync(id)).LeaseToken));
        Assert.False(await db.Artifacts.AnyAsync(Cancel));
    }
}
