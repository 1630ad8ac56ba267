using Microsoft.Extensions.DependencyInjection;
using TrainingService.Domain.Jobs;
using TrainingService.Worker.Supervision;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>SIGKILL from the kernel is told from SIGKILL by anybody else.</summary>
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
public sealed class KilledChildTests : SupervisedWorker
{
    [Fact]
    public async Task A_kill_from_outside_is_a_platform_failure_and_is_retried()
    {
        UseCounters(kills: 7);
        await StartAsync(
            $"if [ ! -e {Folder}/again ]; then touch {Folder}/again; kill -9 $$; fi\n{Succeed}", ("Worker:RetrySeconds", "0"));

        var job = await EndOfAsync(await SubmitAsync());

        Assert.Equal((JobStatus.Succeeded, 2, 1, 0), (job.Status, job.Attempt, job.FailureCount, job.RecoveryCount));
    }

    [Fact]
    public async Task A_kill_that_the_kernel_counted_is_out_of_memory_and_is_not_retried()
    {
        var counters = UseCounters(kills: 7);
        await StartAsync($"echo 'oom_kill 8' > {counters}; kill -9 $$");

        var job = await EndOfAsync(await SubmitAsync());

        Assert.Equal((FailureCodes.OutOfMemory, 1, Responsibility.User), (job.Failure!.Code, job.Attempt, job.Failure.Responsibility));
        Assert.Contains("schedule.batch_size", job.Failure.Message, StringComparison.Ordinal);
    }

    private string UseCounters(int kills)
    {
        var file = Path.Combine(Folder, "vmstat");
        File.WriteAllText(file, $"nr_free_pages 1\noom_kill {kills}\n");
        Configure = services => services.AddSingleton(new KernelKills(Path.Combine(Folder, "none"), Folder));
        return file;
    }
}
