using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;

namespace TrainingService.Infrastructure.Storage;

/// <summary>What one pass removed.</summary>
public readonly record struct SweptStore(int Objects, long Bytes, int Unfinished, int ExpiredFiles, int ExpiredUploads);

/// <summary>
/// One pass over the artifact store. Rows go before objects, so a crash in between leaves an orphan for the next pass and never a row
/// without its object. Objects are listed as a stream and looked up in batches, so memory stays flat however many there are.
/// </summary>
public sealed class StoreSweep(IDbContextFactory<AppDbContext> contexts, IArtifactStore store, TimeProvider clock)
{
    private const int Batch = 500;

    /// <param name="grace">Nothing that was written within it is touched.</param>
    public async Task<SweptStore> PassAsync(TimeSpan grace, CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow();
        var before = now - grace;
        var uploads = await ExpireUploadsAsync(now, cancellationToken);
        var files = await ExpireFilesAsync(now, cancellationToken);
        var unfinished = await store.RemoveUnfinishedAsync(before, cancellationToken);
        var (objects, bytes) = await RemoveOrphansAsync(before, cancellationToken);
        await RemovePartRowsAsync(cancellationToken);
        return new SweptStore(objects, bytes, unfinished, files, uploads);
    }

    private async Task<int> ExpireUploadsAsync(DateTimeOffset now, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var expired = await db.Uploads.Where(upload => upload.Status == UploadStatus.Pending && upload.ExpiresAt <= now)
            .ExecuteUpdateAsync(row => row.SetProperty(upload => upload.Status, UploadStatus.Expired), cancellationToken);

        // The parts of uploads that ended otherwise are removed at once where they end; what a crash left is met here as well.
        var ended = db.UploadParts.AsNoTracking()
            .Where(part => db.Uploads.Any(upload => upload.Id == part.UploadId && upload.Status != UploadStatus.Pending))
            .Select(part => part.StorageKey).AsAsyncEnumerable();
        await foreach (var key in ended.WithCancellation(cancellationToken))
        {
            await store.DeleteAsync(key, cancellationToken);
        }

        return expired;
    }

    private async Task RemovePartRowsAsync(CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        await db.UploadParts
            .Where(part => db.Uploads.Any(upload => upload.Id == part.UploadId && upload.Status != UploadStatus.Pending))
            .ExecuteDeleteAsync(cancellationToken);
    }

    private async Task<int> ExpireFilesAsync(DateTimeOffset now, CancellationToken cancellationToken)
    {
        var removed = 0;
        while (true)
        {
            await using var db = await contexts.CreateDbContextAsync(cancellationToken);
            var expired = await db.Files.Where(file => file.ExpiresAt != null && file.ExpiresAt <= now).Take(Batch).ToListAsync(cancellationToken);
            if (expired.Count == 0)
            {
                return removed;
            }

            db.Files.RemoveRange(expired);
            await db.SaveChangesAsync(cancellationToken);
            foreach (var file in expired.Where(file => StoreOwners.IsFile(file.StorageKey)))
            {
                await store.DeleteAsync(file.StorageKey, cancellationToken);
            }

            removed += expired.Count;
        }
    }

    private async Task<(int Objects, long Bytes)> RemoveOrphansAsync(DateTimeOffset before, CancellationToken cancellationToken)
    {
        var batch = new List<StoredObject>(Batch);
        var (objects, bytes) = (0, 0L);
        async Task FlushAsync()
        {
            await using var db = await contexts.CreateDbContextAsync(cancellationToken);
            foreach (var orphan in await StoreOwners.OrphansAsync(db, batch, cancellationToken))
            {
                await store.DeleteAsync(orphan.Key, cancellationToken);
                objects++;
                bytes += orphan.Bytes;
            }

            batch.Clear();
        }

        foreach (var prefix in StoreOwners.Prefixes)
        {
            await foreach (var stored in store.ListAsync(prefix, cancellationToken))
            {
                if (stored.StoredAt is { } time && time < before)
                {
                    batch.Add(stored);
                    if (batch.Count == Batch)
                    {
                        await FlushAsync();
                    }
                }
            }
        }

        await FlushAsync();
        return (objects, bytes);
    }
}
