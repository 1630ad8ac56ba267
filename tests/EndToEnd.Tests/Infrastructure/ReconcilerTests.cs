using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>What the reconciler does when the parts it stands on fail.</summary>
public sealed class ReconcilerTests
{
    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task It_survives_whatever_the_courier_throws_and_wakes_when_that_is_over()
    {
        await using var service = await TestService.CreateAsync(ServiceProfile.Embedded);
        var id = await service.SubmitAsync();
        var courier = new FailingCourier();
        using var reconciler = new Reconciler(
            service.Jobs, courier, Options.Create(new ReconcilerOptions { IntervalSeconds = 0.1 }), TimeProvider.System, NullLogger<Reconciler>.Instance);

        await reconciler.StartAsync(Cancel);

        Assert.Equal(id, await courier.Woken.WaitAsync(TimeSpan.FromSeconds(30), Cancel));
        Assert.True(courier.Failures.Count == 0);
        await reconciler.StopAsync(Cancel);
        Assert.True(reconciler.ExecuteTask!.IsCanceled);
    }

    [Fact]
    public async Task After_an_outage_workers_get_time_to_renew_before_their_jobs_are_taken()
    {
        await using var service = await TestService.CreateAsync(ServiceProfile.Embedded);
        var id = await service.SubmitAsync();
        var lease = (await service.Jobs.ClaimAsync("worker", TimeSpan.FromMilliseconds(-10), Cancel))!;
        await service.SubmitAsync();   // something for the courier to fail on
        var courier = new FailingCourier();
        using var reconciler = new Reconciler(
            new JobStore(new AwayOnce(service.Services.GetRequiredService<IDbContextFactory<AppDbContext>>()), TimeProvider.System),
            courier, Options.Create(new ReconcilerOptions { IntervalSeconds = 0.1 }), TimeProvider.System, NullLogger<Reconciler>.Instance);

        await reconciler.StartAsync(Cancel);
        await courier.Woken.WaitAsync(TimeSpan.FromSeconds(30), Cancel);   // passes that see the expired lease, and leave it
        await lease.RenewAsync(TimeSpan.FromSeconds(60), Cancel);
        await reconciler.StopAsync(Cancel);

        Assert.Equal((JobStatus.Running, 0), ((await service.ReadAsync(id)).Status, (await service.ReadAsync(id)).RecoveryCount));
    }

    private sealed class FailingCourier : IJobQueue
    {
        private readonly TaskCompletionSource<Guid> _woken = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Queue<Exception> Failures { get; } = new(
        [
            new TimeoutException("The storage did not answer."),
            new System.Net.Sockets.SocketException(111),
            new Hangfire.BackgroundJobClientException("The storage is away.", new InvalidOperationException()),
            new InvalidOperationException("An exception has been raised that is likely due to a transient failure."),
            new ObjectDisposedException("storage"),
        ]);

        public Task<Guid> Woken => _woken.Task;

        public void Wake(Guid jobId) => _woken.TrySetResult(jobId);

        public long CountWaiting() => Failures.TryDequeue(out var failure) ? throw failure : 0;
    }

    /// <summary>A database whose first connection fails.</summary>
    private sealed class AwayOnce(IDbContextFactory<AppDbContext> inner) : IDbContextFactory<AppDbContext>
    {
        private int _calls;

        public AppDbContext CreateDbContext() =>
            Interlocked.Increment(ref _calls) == 1 ? throw new Npgsql.NpgsqlException("Connection refused.") : inner.CreateDbContext();
    }
}
