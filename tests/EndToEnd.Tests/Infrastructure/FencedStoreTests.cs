using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Infrastructure.Storage;
using TrainingService.Worker.Supervision;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>A worker that was stopped past its lease, and goes on, writes nothing to the store.</summary>
public sealed class FencedStoreTests
{
    private static readonly TimeSpan Lease = TimeSpan.FromSeconds(60);

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_stop_past_the_lease_ends_the_write_when_the_job_was_taken_and_only_then(bool taken)
    {
        await using var service = await TestService.CreateAsync(ServiceProfile.Embedded);
        await service.SubmitAsync();
        var clock = new JumpingClock();
        var jobs = new JobStore(service.Services.GetRequiredService<IDbContextFactory<AppDbContext>>(), clock);
        var lease = (await jobs.ClaimAsync("worker-1", Lease, Cancel))!;
        var store = new FolderArtifactStore(service.Folder);
        var moved = 0;
        var fenced = new FencedStore(store, lease, Lease, () => moved++, clock, NullLogger.Instance);
        await PutAsync(fenced, "before", () => { });

        // In the middle of a body the process is stopped for longer than its lease.
        async Task Stop()
        {
            await PutAsync(fenced, "stopped", () =>
            {
                clock.Jump(Lease * 2);
                if (taken)
                {
                    service.Jobs.RecoverAsync(expiredOnly: false, 5, TimeSpan.Zero, Cancel).GetAwaiter().GetResult();
                }
            });
        }

        if (taken)
        {
            await Assert.ThrowsAsync<LeaseLostException>(Stop);
            await Assert.ThrowsAsync<LeaseLostException>(() => PutAsync(fenced, "after", () => { }));
            await Assert.ThrowsAsync<LeaseLostException>(() => fenced.DeleteFolderAsync("before", Cancel));
        }
        else
        {
            await Stop();
            Assert.True(lease.Remaining > Lease / 2);
        }

        Assert.True(moved > 2);
        var keys = new List<string>();
        await foreach (var stored in store.ListAsync("", Cancel))
        {
            keys.Add(stored.Key);
        }

        Assert.Equal(taken ? ["before"] : ["before", "stopped"], keys.Order());
        Assert.Empty(Directory.GetFiles(Path.Combine(service.Folder, "incoming")));
    }

    private static async Task PutAsync(FencedStore store, string key, Action between)
    {
        using var content = new TwoChunks(between);
        await store.PutAsync(key, content, "text/plain", Cancel);
    }

    /// <summary>Two bytes, with something happening in between.</summary>
    private sealed class TwoChunks(Action between) : MemoryStream([1, 2])
    {
        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            if (Position == 1)
            {
                between();
            }

            return base.ReadAsync(buffer[..Math.Min(1, buffer.Length)], cancellationToken);
        }
    }

    /// <summary>The machine's clock, on which time can pass at once.</summary>
    private sealed class JumpingClock : TimeProvider
    {
        private long _ahead;

        public override long GetTimestamp() => System.GetTimestamp() + _ahead;

        public void Jump(TimeSpan time) => _ahead += (long)(time.TotalSeconds * TimestampFrequency);
    }
}
