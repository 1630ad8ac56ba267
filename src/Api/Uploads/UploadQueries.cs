using Microsoft.EntityFrameworkCore;
using TrainingService.Domain;
using TrainingService.Domain.Files;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Uploads;

internal static class UploadQueries
{
    public static async Task<Upload?> FindUploadAsync(this AppDbContext db, Caller caller, string id, CancellationToken cancellationToken) =>
        PublicId.TryParse(PublicId.Upload, id, out var key)
            ? await db.Uploads.AsNoTracking().SingleOrDefaultAsync(upload => upload.Id == key && upload.ProjectId == caller.ProjectId, cancellationToken)
            : null;

    /// <summary>As it shows: one whose time is over has expired, whether or not the clean-up has been there.</summary>
    public static UploadStatus StatusAt(this Upload upload, DateTimeOffset now) =>
        upload.Status == UploadStatus.Pending && upload.ExpiresAt <= now ? UploadStatus.Expired : upload.Status;

    public static async Task<UploadResponse> ShowAsync(
        this AppDbContext db, Upload upload, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var file = upload.FileId is { } id
            ? await db.Files.AsNoTracking().SingleOrDefaultAsync(file => file.Id == id && file.ProjectId == upload.ProjectId, cancellationToken)
            : null;
        return UploadResponse.From(upload, upload.StatusAt(now), file);
    }
}
