using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.EndToEnd.Tests.Infrastructure;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.EndToEnd.Tests.HangfirePitfalls;

/// <summary>What Hangfire on Postgres does to wake-ups, and that it does nothing to jobs: the real courier, the real worker, real rows.</summary>
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
public sealed class HangfireDeliveryTests : SupervisedWorker
{
    private TestService? _database;

    [Fact]
    public async Task B_and_e_A_wake_up_that_is_delivered_many_times_at_once_runs_the_job_once()
    {
        await using var database = await DatabaseAsync();
        await StartOnPostgresAsync($"echo run >> {Folder}/runs.txt\nsleep 1\n{Succeed}", ("Worker:Concurrency", "3"));
        var id = await SubmitAsync();
        await SqlAsync("INSERT INTO hangfire.jobqueue (jobid, queue) SELECT job.id, 'training' FROM hangfire.job AS job, generate_series(1, 6)");

        var job = await EndOfAsync(id);
        await UntilQueueIsEmptyAsync();

        Assert.Equal((JobStatus.Succeeded, 1), (job.Status, job.Attempt));
        Assert.Equal(["run"], await File.ReadAllLinesAsync(Path.Combine(Folder, "runs.txt"), Cancel));
        await TheHost.StopAsync(Cancel);
    }

    [Theory]
    [InlineData("C_and_g: fetched by a server that died", "UPDATE hangfire.jobqueue SET fetchedat = now()")]
    [InlineData("G: the queue's row is gone", "DELETE FROM hangfire.jobqueue")]
    [InlineData("K: never enqueued, and all rows of the courier lost", "TRUNCATE hangfire.job, hangfire.jobqueue, hangfire.state, hangfire.jobparameter, hangfire.server CASCADE")]
    public async Task A_wake_up_that_is_lost_is_sent_again(string pitfall, string loss)
    {
        await using var database = await DatabaseAsync();
        var ids = new List<Guid>();
        for (var i = 0; i < 3; i++)
        {
            ids.Add(await database.SubmitAsync());
            database.Services.GetRequiredService<IJobQueue>().Wake(ids[i]);
        }

        await SqlAsync(loss);
        await StartOnPostgresAsync(Succeed);

        foreach (var id in ids)
        {
            var job = await EndOfAsync(id);   // its spec names no data, so it fails: but it was taken, and once
            Assert.True((JobStatus.Failed, 1) == (job.Status, job.Attempt), $"{pitfall}: {job.Status}, attempt {job.Attempt}");
        }

        await TheHost.StopAsync(Cancel);
    }

    [Fact]
    public async Task D_Wake_ups_that_were_heard_leave_no_row_in_the_queue()
    {
        await using var database = await DatabaseAsync();
        for (var i = 0; i < 20; i++)
        {
            database.Services.GetRequiredService<IJobQueue>().Wake(Guid.NewGuid());
        }

        await StartOnPostgresAsync(Succeed, ("Worker:Concurrency", "4"));
        await UntilQueueIsEmptyAsync();
        await TheHost.StopAsync(Cancel);
    }

    [Fact]
    public async Task F_On_shutdown_the_job_goes_back_by_our_own_hand_and_the_next_worker_runs_it()
    {
        await using var database = await DatabaseAsync();
        await StartOnPostgresAsync($$"""
            if [ ! -e {{Folder}}/first ]; then
              touch {{Folder}}/first
              echo '{"type":"phase","phase":"training"}'
              read command
              exit 3
            fi
            {{Succeed}}
            """);
        var id = await SubmitAsync();
        await UntilAsync(id, job => job.Phase == "training");

        await TheHost.StopAsync(Cancel);
        TheHost.Dispose();
        var between = await database.ReadAsync(id);
        await SqlAsync("TRUNCATE hangfire.job, hangfire.jobqueue, hangfire.state, hangfire.jobparameter CASCADE");
        await StartHostAsync();
        var job = await EndOfAsync(id);

        Assert.Equal((JobStatus.Queued, 0), (between.Status, between.RecoveryCount));
        Assert.Equal((JobStatus.Succeeded, 2), (job.Status, job.Attempt));
        await TheHost.StopAsync(Cancel);
    }

    [Fact]
    public async Task H_A_run_outlives_the_token_that_Hangfire_cancels_when_it_restarts_its_server()
    {
        var go = Path.Combine(Folder, "go");
        Configure = services => services.AddSingleton<IJobQueue, SilentQueue>();
        await StartAsync($$"""
            echo '{"type":"phase","phase":"training"}'
            while [ ! -e {{go}} ]; do sleep 0.1; done
            {{Succeed}}
            """);
        var id = await SubmitAsync();
        using var hangfire = new CancellationTokenSource();
        var run = Services.GetRequiredService<TrainingService.Infrastructure.Queue.ITrainingJobRunner>().RunAsync(id, hangfire.Token);
        await UntilAsync(id, job => job.Phase == "training");

        await hangfire.CancelAsync();
        await Task.Delay(500, Cancel);
        await File.WriteAllTextAsync(go, "", Cancel);
        await run;

        var job = await JobAsync(id);
        Assert.Equal((JobStatus.Succeeded, 1), (job.Status, job.Attempt));
    }

    [Fact]
    public async Task J_Jobs_start_by_priority_whichever_wake_up_comes_first()
    {
        await using var database = await DatabaseAsync();
        var low = await database.SubmitAsync(priority: 0);
        database.Services.GetRequiredService<IJobQueue>().Wake(low);
        var middle = await database.SubmitAsync(priority: 1);
        var high = await database.SubmitAsync(priority: 2);
        await StartOnPostgresAsync(Succeed);

        var started = new List<(DateTimeOffset At, Guid Job)>();
        foreach (var id in new[] { low, middle, high })
        {
            started.Add(((await EndOfAsync(id)).StartedAt!.Value, id));
        }

        Assert.Equal([high, middle, low], started.Order().Select(start => start.Job));
        await TheHost.StopAsync(Cancel);
    }

    [Fact]
    public async Task Embedded_jobs_that_waited_when_the_process_was_killed_run_after_the_next_start()
    {
        Configure = services => services.AddSingleton<IJobQueue, SilentQueue>();
        await StartAsync(Succeed);
        var id = await SubmitAsync();
        await TheHost.StopAsync(Cancel);
        TheHost.Dispose();
        Configure = _ => { };
        await StartHostAsync();

        Assert.Equal(JobStatus.Succeeded, (await EndOfAsync(id)).Status);
    }

    [Fact]
    public async Task The_embedded_database_is_on_disk_before_a_job_is_accepted()
    {
        await using var service = await TestService.CreateAsync(ServiceProfile.Embedded);
        await using var db = await service.OpenAsync();

        Assert.Equal("wal", await db.Database.SqlQueryRaw<string>("SELECT journal_mode AS \"Value\" FROM pragma_journal_mode").SingleAsync(Cancel));
        const int Full = 2;
        Assert.Equal(Full, await db.Database.SqlQueryRaw<int>("SELECT synchronous AS \"Value\" FROM pragma_synchronous").SingleAsync(Cancel));
    }

    private async Task<TestService> DatabaseAsync() => _database = await TestService.CreateAsync(ServiceProfile.Production);

    private async Task StartOnPostgresAsync(string child, params (string Name, string Value)[] settings)
    {
        await using var db = await _database!.OpenAsync();
        Configure = services => services.AddSingleton<IArtifactStore>(new FolderArtifactStore(Path.Combine(Folder, "store")));
        await StartAsync(
            child,
            [
                ("Profile", "production"), ("ConnectionStrings:Postgres", db.Database.GetConnectionString()!), ("S3:Endpoint", "unused"),
                ("S3:AccessKey", "unused"), ("S3:SecretKey", "unused"), .. settings,
            ]);
    }

    private async Task SqlAsync(string sql)
    {
        await using var db = await _database!.OpenAsync();
        await db.Database.ExecuteSqlRawAsync(sql, Cancel);
    }

    private async Task UntilQueueIsEmptyAsync()
    {
        var start = TimeProvider.System.GetTimestamp();
        await using var db = await _database!.OpenAsync();
        while (await db.Database.SqlQueryRaw<long>("SELECT count(*) AS \"Value\" FROM hangfire.jobqueue").SingleAsync(Cancel) > 0)
        {
            Assert.True(TimeProvider.System.GetElapsedTime(start) < TimeSpan.FromSeconds(40), "Rows stay in the queue.");
            await Task.Delay(100, Cancel);
        }
    }

    /// <summary>A courier that loses everything.</summary>
    private sealed class SilentQueue : IJobQueue
    {
        public void Wake(Guid jobId)
        {
        }

        public long CountWaiting() => 0;
    }
}
