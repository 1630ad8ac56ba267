using Microsoft.Extensions.Logging;
using TrainingService.Domain.Artifacts;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.Worker.Supervision;

/// <summary>
/// The artifact store as one attempt may write to it. Before each object, and before each chunk of one, it looks at the monotonic
/// clock: when the lease may have run out, because the process was stopped or the database is away, the lease is renewed first. A
/// worker that was stopped past its lease and goes on hears there that the job is another's, and writes nothing.
/// </summary>
/// <param name="lifetime">For which the lease is renewed.</param>
/// <param name="alive">Called while bytes move: an upload of hours is progress too.</param>
internal sealed class FencedStore(
    IArtifactStore store, JobLease lease, TimeSpan lifetime, Action alive, TimeProvider clock, ILogger logger)
{
    /// <summary>Below this much of a lease nothing new is begun.</summary>
    private readonly TimeSpan _margin = lifetime / 4;

    private bool IsSafe => lease.Remaining > _margin;

    /// <exception cref="LeaseLostException">The job is another worker's now, or has ended.</exception>
    public async Task<StoredObject> PutAsync(string key, Stream content, string contentType, CancellationToken cancellationToken)
    {
        await HoldAsync(cancellationToken);
        await using var guarded = new FencedStream(content, this);
        try
        {
            return await store.PutAsync(key, guarded, contentType, cancellationToken);
        }
        catch (Exception) when (guarded.Lost is not null)
        {
            throw guarded.Lost;   // whatever a client made of it on the way
        }
    }

    /// <exception cref="LeaseLostException">The job is another worker's now, or has ended.</exception>
    public async Task DeleteFolderAsync(string prefix, CancellationToken cancellationToken)
    {
        await foreach (var stored in store.ListAsync(prefix, cancellationToken))
        {
            await HoldAsync(cancellationToken);
            await store.DeleteAsync(stored.Key, cancellationToken);
        }
    }

    private async Task HoldAsync(CancellationToken cancellationToken)
    {
        alive();
        if (!IsSafe)
        {
            await Patience.PersistAsync(() => lease.RenewAsync(lifetime, cancellationToken), clock, logger, cancellationToken);
        }
    }

    /// <summary>Hands out no byte without the lease. Its owner keeps the inner stream.</summary>
    private sealed class FencedStream(Stream inner, FencedStore fence) : Stream, IWriteFence
    {
        public LeaseLostException? Lost { get; private set; }

        public override bool CanRead => true;

        public override bool CanSeek => inner.CanSeek;

        public override bool CanWrite => false;

        public override long Length => inner.Length;

        public override long Position
        {
            get => inner.Position;
            set => inner.Position = value;
        }

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            await HoldAsync(cancellationToken);
            return await inner.ReadAsync(buffer, cancellationToken);
        }

        /// <summary>Asked by the store too, which reads ahead of what it sends.</summary>
        public async ValueTask HoldAsync(CancellationToken cancellationToken)
        {
            try
            {
                await fence.HoldAsync(cancellationToken);
            }
            catch (LeaseLostException lost)
            {
                Lost = lost;
                throw;
            }
        }

        public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
            ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

        public override int Read(byte[] buffer, int offset, int count) => fence.IsSafe
            ? inner.Read(buffer, offset, count)
            : throw new IOException("The lease must be renewed before the next chunk; try again.");   // a renewal is no business of a blocking call

        public override long Seek(long offset, SeekOrigin origin) => inner.Seek(offset, origin);

        public override void Flush()
        {
        }

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
