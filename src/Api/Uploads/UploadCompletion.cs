using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Http;
using TrainingService.Domain;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Uploads;

/// <summary>Makes parts one file, or removes them.</summary>
internal sealed partial class UploadCompletion(AppDbContext db, IArtifactStore store, TimeProvider clock, ILogger<UploadCompletion> logger)
{
    /// <summary>
    /// Copies the parts into one object, then completes the upload and adds the file in one transaction. Where another call was
    /// faster, this one's object is removed again and the other's file stands.
    /// </summary>
    /// <exception cref="RequestException">The parts are not those of the upload, or do not make up the file that was announced.</exception>
    public async Task CompleteAsync(Upload upload, CompleteUploadRequest body, CancellationToken cancellationToken)
    {
        var parts = await PartsAsync(upload, body.PartIds ?? [], cancellationToken);
        var fileId = Guid.CreateVersion7(clock.GetUtcNow());
        var key = $"projects/{upload.ProjectId:N}/files/{fileId:N}";
        var kept = false;
        try
        {
            await using var content = new PartsStream(store, parts);
            var stored = await store.PutAsync(key, content, "application/octet-stream", cancellationToken);
            CheckMd5(body.Md5, content.TakeMd5());
            kept = await CommitAsync(upload, fileId, stored, cancellationToken);
        }
        finally
        {
            if (!kept)
            {
                await store.DeleteAsync(key, CancellationToken.None);
            }
        }

        await RemovePartsAsync(upload.Id);
    }

    /// <summary>Removes the parts of an upload that has ended. What the store keeps now, its clean-up removes later.</summary>
    public async Task RemovePartsAsync(Guid upload)
    {
        try
        {
            var keys = await db.UploadParts.Where(part => part.UploadId == upload).Select(part => part.StorageKey).ToListAsync(CancellationToken.None);
            foreach (var key in keys)
            {
                await store.DeleteAsync(key, CancellationToken.None);
            }

            await db.UploadParts.Where(part => part.UploadId == upload).ExecuteDeleteAsync(CancellationToken.None);
        }
        catch (ArtifactStoreException e)
        {
            PartsStay(PublicId.Of(PublicId.Upload, upload), e);
        }
    }

    private async Task<IReadOnlyList<UploadPart>> PartsAsync(Upload upload, IReadOnlyList<string> ids, CancellationToken cancellationToken)
    {
        var known = await db.UploadParts.AsNoTracking().Where(part => part.UploadId == upload.Id)
            .ToDictionaryAsync(part => PublicId.Of(PublicId.UploadPart, part.Id), cancellationToken);
        if (ids.Count == 0 || ids.Distinct().Count() != ids.Count)
        {
            throw RequestException.Invalid("invalid_parts", "part_ids must name each part of the file once, in their order.", "part_ids");
        }

        var unknown = ids.FirstOrDefault(id => !known.ContainsKey(id));
        if (unknown is not null)
        {
            throw RequestException.Invalid("unknown_part", $"The upload has no part '{unknown}'.", "part_ids");
        }

        var parts = ids.Select(id => known[id]).ToList();
        var bytes = parts.Sum(part => part.Bytes);
        return bytes == upload.Bytes
            ? parts
            : throw RequestException.Invalid(
                "bytes_mismatch", $"The parts have {bytes:N0} bytes together, and the upload was announced with {upload.Bytes:N0}.", "part_ids");
    }

    private static void CheckMd5(string? expected, byte[] found)
    {
        if (expected is not null && !expected.Equals(Convert.ToHexString(found), StringComparison.OrdinalIgnoreCase) && expected != Convert.ToBase64String(found))
        {
            throw RequestException.Invalid("md5_mismatch", $"The parts have the MD5 {Convert.ToHexStringLower(found)} together, not '{expected}'.", "md5");
        }
    }

    private async Task<bool> CommitAsync(Upload upload, Guid fileId, StoredObject stored, CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow();
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var won = await db.Uploads.Where(row => row.Id == upload.Id && row.Status == UploadStatus.Pending)
            .ExecuteUpdateAsync(
                row => row.SetProperty(u => u.Status, UploadStatus.Completed).SetProperty(u => u.FileId, fileId), cancellationToken);
        if (won == 0)
        {
            return false;
        }

        db.Files.Add(new DataFile
        {
            Id = fileId,
            ProjectId = upload.ProjectId,
            FileName = upload.FileName,
            Purpose = upload.Purpose,
            Bytes = stored.Bytes,
            Sha256 = stored.Sha256,
            StorageKey = stored.Key,
            CreatedAt = now,
            ExpiresAt = upload.FileLifetimeSeconds is { } life ? now.AddSeconds(life) : null,
        });
        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return true;
    }

    [LoggerMessage(1, LogLevel.Warning, "The parts of {UploadId} could not be removed; the clean-up of the store does it later")]
    private partial void PartsStay(string uploadId, Exception exception);
}
