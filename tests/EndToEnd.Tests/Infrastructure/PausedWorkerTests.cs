using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>What the supervisor does when a job's owner pauses, resumes or cancels it, whatever it is busy with.</summary>
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
public sealed class PausedWorkerTests : SupervisedWorker
{
    private const string Train = "echo '{\"type\":\"phase\",\"phase\":\"training\"}'";

    /// <summary>Saves a checkpoint of step 1 when it is asked to, and succeeds when it finds one.</summary>
    private static readonly string StopsAndGoesOn = $$"""
        if [ -e $work/checkpoints/step-000001/manifest.json ]; then
        test -e $work/checkpoints/step-000001/before/metrics.jsonl || exit 1
        {{Succeed}}
        exit 0; fi
        {{Train}}
        read command
        [ "$command" = checkpoint-and-stop ] || exit 1
        {{Succeed.Replace("echo '{}' > $work/spec.json", "exit 3")}}
        """;

    [Fact]
    public async Task A_pause_saves_a_checkpoint_and_resuming_goes_on_from_it()
    {
        await StartAsync(StopsAndGoesOn);
        var id = await SubmitAsync();
        await UntilAsync(id, job => job.Phase == "training");
        var asked = TimeProvider.System.GetTimestamp();
        await ChangeAsync(id, (job, now) => job.Pause(now));

        var paused = await UntilAsync(id, job => job.Status == JobStatus.Paused);

        Assert.True(TimeProvider.System.GetElapsedTime(asked) < TimeSpan.FromSeconds(5));
        Assert.Equal((1, 0, 0, null), (paused.Step, paused.FailureCount, paused.RecoveryCount, paused.PauseRequestedAt));
        await using (var db = await OpenAsync())
        {
            Assert.Equal(1, (await db.Checkpoints.SingleAsync(Cancel)).Step);
            Assert.False(await db.Events.AnyAsync(e => e.Level == EventLevel.Warn, Cancel));
        }

        await ChangeAsync(id, (job, now) => job.Resume(now));
        Services.GetRequiredService<IJobQueue>().Wake(id);
        var job = await EndOfAsync(id);
        Assert.Equal((JobStatus.Succeeded, 2, 0), (job.Status, job.Attempt, job.FailureCount));
    }

    [Fact]
    public async Task A_pause_before_the_first_step_has_nothing_to_save()
    {
        await StartAsync("echo '{\"type\":\"phase\",\"phase\":\"tokenizing\"}'; read command; exit 3");
        var id = await SubmitAsync();
        await UntilAsync(id, job => job.Phase == "tokenizing");
        await ChangeAsync(id, (job, now) => job.Pause(now));

        await UntilAsync(id, job => job.Status == JobStatus.Paused);

        await using var db = await OpenAsync();
        Assert.False(await db.Events.AnyAsync(e => e.Level == EventLevel.Warn, Cancel));
    }

    [Fact]
    public async Task A_cancel_overrules_a_pause_that_the_child_does_not_obey()
    {
        await StartAsync($"{Train}; read command; read command; [ $command = cancel ] && exit 4");
        var id = await SubmitAsync();
        await UntilAsync(id, job => job.Phase == "training");
        await ChangeAsync(id, (job, now) => job.Pause(now));
        await Task.Delay(300, Cancel);
        Assert.Equal(JobStatus.Running, (await JobAsync(id)).Status);
        var asked = TimeProvider.System.GetTimestamp();

        await CancelAsync(id);

        Assert.Equal(JobStatus.Cancelled, (await EndOfAsync(id)).Status);
        Assert.True(TimeProvider.System.GetElapsedTime(asked) < TimeSpan.FromSeconds(5));
    }

    [Fact]
    public async Task A_pause_that_was_withdrawn_too_late_puts_the_job_back_and_it_goes_on()
    {
        await StartAsync(StopsAndGoesOn.Replace("read command\n", $"read command; touch {Folder}/heard; while [ ! -e {Folder}/withdrawn ]; do sleep 0.05; done\n"));
        var id = await SubmitAsync();
        await UntilAsync(id, job => job.Phase == "training");
        await ChangeAsync(id, (job, now) => job.Pause(now));
        await UntilAsync(id, _ => File.Exists(Path.Combine(Folder, "heard")));
        await ChangeAsync(id, (job, now) => job.Resume(now));
        await File.WriteAllTextAsync(Path.Combine(Folder, "withdrawn"), "", Cancel);

        var job = await EndOfAsync(id);

        Assert.Equal((JobStatus.Succeeded, 2, 0, 0), (job.Status, job.Attempt, job.FailureCount, job.RecoveryCount));
        Assert.DoesNotContain(JobStatus.Paused, job.History.Select(move => move.Status));
    }

    [Theory]
    [InlineData(JobStatus.Paused)]
    [InlineData(JobStatus.Cancelled)]
    public async Task An_upload_gives_way_to_a_pause_and_to_a_cancel(JobStatus end)
    {
        var store = Use(new UnreliableStore(Folder));
        await StartAsync(Succeed);
        store.Hanging = key => key.Contains("/attempt-1/adapter/", StringComparison.Ordinal);
        var id = await SubmitAsync();
        await store.Hangs.WaitAsync(TimeSpan.FromSeconds(30), Cancel);
        var asked = TimeProvider.System.GetTimestamp();
        await ChangeAsync(id, (job, now) => (end == JobStatus.Paused ? (Action<DateTimeOffset>)job.Pause : job.Cancel)(now));

        await UntilAsync(id, job => job.Status == end);

        Assert.True(TimeProvider.System.GetElapsedTime(asked) < TimeSpan.FromSeconds(5));
        await using var db = await OpenAsync();
        Assert.False(await db.Artifacts.AnyAsync(a => a.Path != "logs/train.log", Cancel));
        if (end == JobStatus.Paused)
        {
            await ChangeAsync(id, (job, now) => job.Resume(now));
            Services.GetRequiredService<IJobQueue>().Wake(id);
            Assert.Equal(JobStatus.Succeeded, (await EndOfAsync(id)).Status);
        }
    }

    [Fact]
    public async Task A_pause_whose_checkpoint_cannot_be_stored_ends_within_the_grace_and_says_so()
    {
        var store = Use(new UnreliableStore(Folder));
        await StartAsync(StopsAndGoesOn, ("Worker:PauseGraceSeconds", "2"));
        var id = await SubmitAsync();
        await UntilAsync(id, job => job.Phase == "training");
        store.Away = true;
        await ChangeAsync(id, (job, now) => job.Pause(now));

        await UntilAsync(id, job => job.Status == JobStatus.Paused);

        await using var db = await OpenAsync();
        var warning = await db.Events.SingleAsync(e => e.Level == EventLevel.Warn, Cancel);
        Assert.Contains("step 1 could not be stored", warning.Message, StringComparison.Ordinal);
        Assert.Contains("from the start", warning.Message, StringComparison.Ordinal);
    }

    private UnreliableStore Use(UnreliableStore store)
    {
        Configure = services => services.AddSingleton<IArtifactStore>(store);
        return store;
    }
}
