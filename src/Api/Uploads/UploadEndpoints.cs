using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using TrainingService.Api.Files;
using TrainingService.Api.Http;
using TrainingService.Api.OpenApi;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Uploads;

/// <summary>Files that arrive in parts, in any order and over any number of connections.</summary>
internal static class UploadEndpoints
{
    private const int MostParts = 10_000;

    public static void MapUploads(this IEndpointRouteBuilder routes)
    {
        var uploads = routes.MapGroup("/v1/uploads").WithTags("Uploads").RequireAuthorization();
        uploads.MapPost("", Create).WithSummary("Announce a file that will be sent in parts");
        uploads.MapGet("/{id}", Get).WithSummary("Read an upload and what has arrived of it");
        uploads.MapPost("/{id}/parts", AddPart).WithSummary("Send one part")
            .TakesForm(new FormField("data", "The bytes of the part, up to Files:LargestPartBytes.", IsFile: true, Required: true));
        uploads.MapPost("/{id}/complete", Complete).WithSummary("Make the parts one file")
            .WithDescription("May be repeated: once complete, it answers the same.");
        uploads.MapPost("/{id}/cancel", Cancel).WithSummary("Give an upload up");
    }

    private static async Task<Ok<UploadResponse>> Create(
        CreateUploadRequest body, Caller caller, AppDbContext db, TimeProvider clock, IOptions<UploadOptions> options,
        CancellationToken cancellationToken)
    {
        var purpose = FilePurposes.Check(body.Purpose);
        var most = options.Value.LargestFileBytes;
        if (body.Bytes < 1 || body.Bytes > most)
        {
            throw RequestException.Invalid("out_of_range", $"bytes must be from 1 to {most:N0}, and is {body.Bytes}.", "bytes");
        }

        if (string.IsNullOrEmpty(body.Filename))
        {
            throw RequestException.Invalid("missing_field", "filename is missing or empty.", "filename");
        }

        var now = clock.GetUtcNow();
        var upload = new Upload
        {
            Id = Guid.CreateVersion7(now),
            ProjectId = caller.ProjectId,
            FileName = MultipartForm.SafeName(body.Filename),
            Purpose = purpose,
            MimeType = body.MimeType is { Length: > 255 } type ? type[..255] : body.MimeType,
            Bytes = body.Bytes,
            Status = UploadStatus.Pending,
            CreatedAt = now,
            ExpiresAt = now.AddMinutes(options.Value.UploadLifetimeMinutes),
            FileLifetimeSeconds = body.ExpiresAfter is { } life
                ? FilePurposes.CheckLifetime(life.Anchor, life.Seconds, "expires_after.anchor", "expires_after.seconds")
                : null,
        };
        db.Uploads.Add(upload);
        await db.SaveChangesAsync(cancellationToken);
        return TypedResults.Ok(UploadResponse.From(upload, upload.Status, null));
    }

    private static async Task<Results<Ok<UploadResponse>, ErrorResult>> Get(
        string id, Caller caller, AppDbContext db, TimeProvider clock, CancellationToken cancellationToken)
    {
        var upload = await db.FindUploadAsync(caller, id, cancellationToken);
        if (upload is null)
        {
            return ErrorResult.NotFound("upload", id);
        }

        var parts = await db.UploadParts.AsNoTracking().Where(part => part.UploadId == upload.Id)
            .OrderBy(part => part.CreatedAt).ThenBy(part => part.Id).ToListAsync(cancellationToken);
        var shown = await db.ShowAsync(upload, clock.GetUtcNow(), cancellationToken);
        return TypedResults.Ok(shown with { Parts = [.. parts.Select(UploadPartResponse.From)] });
    }

    private static async Task<Results<Ok<UploadPartResponse>, ErrorResult>> AddPart(
        string id, HttpContext context, Caller caller, AppDbContext db, IArtifactStore store, TimeProvider clock, IOptions<UploadOptions> options,
        CancellationToken cancellationToken)
    {
        var upload = await db.FindUploadAsync(caller, id, cancellationToken);
        if (upload is null)
        {
            return ErrorResult.NotFound("upload", id);
        }

        if (Refusal(upload, clock.GetUtcNow()) is { } refusal)
        {
            return refusal;
        }

        var limit = options.Value.LargestPartBytes;
        var there = await db.UploadParts.Where(part => part.UploadId == upload.Id)
            .GroupBy(part => part.UploadId).Select(parts => new { Count = parts.Count(), Bytes = parts.Sum(part => part.Bytes) })
            .SingleOrDefaultAsync(cancellationToken);

        // A part whose answer was lost is sent again, so somewhat more than the file may lie here.
        if (there is not null && (there.Count >= MostParts || there.Bytes > (2 * upload.Bytes) + limit))
        {
            return ErrorResult.Invalid(
                "too_many_parts", $"The upload has {there.Count} parts with {there.Bytes:N0} bytes already; complete it, or cancel it and begin anew.", "data");
        }

        var partId = Guid.CreateVersion7(clock.GetUtcNow());
        var key = $"projects/{caller.ProjectId:N}/uploads/{upload.Id:N}/{partId:N}";
        StoredObject? stored = null;
        await MultipartForm.ReadAsync(context, limit + (1 << 20), async (field, _, content) =>
        {
            if (field != "data" || stored is not null)
            {
                throw RequestException.Invalid("unknown_field", "The body takes one part, in the field 'data'.", field);
            }

            stored = await store.PutAsync(key, new LimitedStream(content, limit, "data"), "application/octet-stream", cancellationToken);
        }, cancellationToken);
        if (stored is null || stored.Bytes == 0)
        {
            return ErrorResult.Invalid("missing_field", "The field 'data' with the bytes of the part, as a file, is missing or empty.", "data");
        }

        // The object first: bytes without a row are waste that the clean-up removes, a row without bytes is a lie.
        var part = new UploadPart
        {
            Id = partId,
            UploadId = upload.Id,
            Bytes = stored.Bytes,
            Sha256 = stored.Sha256,
            StorageKey = key,
            CreatedAt = clock.GetUtcNow(),
        };
        db.UploadParts.Add(part);
        await db.SaveChangesAsync(cancellationToken);
        return TypedResults.Ok(UploadPartResponse.From(part));
    }

    private static async Task<Results<Ok<UploadResponse>, ErrorResult>> Complete(
        string id, CompleteUploadRequest body, Caller caller, AppDbContext db, UploadCompletion completion, TimeProvider clock,
        CancellationToken cancellationToken)
    {
        var upload = await db.FindUploadAsync(caller, id, cancellationToken);
        if (upload is null)
        {
            return ErrorResult.NotFound("upload", id);
        }

        if (upload.Status != UploadStatus.Completed)
        {
            if (Refusal(upload, clock.GetUtcNow()) is { } refusal)
            {
                return refusal;
            }

            await completion.CompleteAsync(upload, body, cancellationToken);
            upload = await db.FindUploadAsync(caller, id, cancellationToken);
            if (upload!.Status != UploadStatus.Completed)
            {
                return Refusal(upload, clock.GetUtcNow()) ?? ErrorResult.Conflict("upload_changed", "The upload changed meanwhile; try again.", "id");
            }
        }

        return TypedResults.Ok(await db.ShowAsync(upload, clock.GetUtcNow(), cancellationToken));
    }

    private static async Task<Results<Ok<UploadResponse>, ErrorResult>> Cancel(
        string id, Caller caller, AppDbContext db, UploadCompletion completion, TimeProvider clock, CancellationToken cancellationToken)
    {
        var upload = await db.FindUploadAsync(caller, id, cancellationToken);
        if (upload is null)
        {
            return ErrorResult.NotFound("upload", id);
        }

        var changed = await db.Uploads.Where(row => row.Id == upload.Id && row.Status == UploadStatus.Pending)
            .ExecuteUpdateAsync(row => row.SetProperty(u => u.Status, UploadStatus.Cancelled), cancellationToken);
        upload = (await db.FindUploadAsync(caller, id, cancellationToken))!;
        if (upload.Status != UploadStatus.Cancelled)
        {
            return Refusal(upload, clock.GetUtcNow())!;
        }

        if (changed > 0)
        {
            await completion.RemovePartsAsync(upload.Id);
        }

        return TypedResults.Ok(await db.ShowAsync(upload, clock.GetUtcNow(), cancellationToken));
    }

    /// <summary>Why an upload takes nothing any more; null while it does.</summary>
    private static ErrorResult? Refusal(Upload upload, DateTimeOffset now)
    {
        var status = upload.StatusAt(now);
        return status == UploadStatus.Pending
            ? null
            : ErrorResult.Conflict($"upload_{Wire.Name(status)}", $"The upload is {Wire.Name(status)}; create another one.", "id");
    }
}
