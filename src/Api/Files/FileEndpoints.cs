using System.Globalization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using TrainingService.Api.Http;
using TrainingService.Api.OpenApi;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Files;

internal static class FileEndpoints
{
    private const int LargestPage = 10_000;

    public static void MapFiles(this IEndpointRouteBuilder routes)
    {
        var files = routes.MapGroup("/v1/files").WithTags("Files").RequireAuthorization();
        files.MapPost("", Create).WithSummary("Upload a file")
            .WithDescription("Streams a data file into the store. JSONL, JSON array or CSV; .gz of each.")
            .TakesForm(
                new FormField("file", "The file.", IsFile: true, Required: true),
                new FormField("purpose", "What it is for: fine-tune.", Required: true, Example: "fine-tune"),
                new FormField("expires_after[anchor]", "created_at"),
                new FormField("expires_after[seconds]", "Seconds after which the file may be deleted, 3600 to 2592000."));
        files.MapGet("", List).WithSummary("List files, newest first");
        files.MapGet("/{id}", Get).WithSummary("Read a file's facts");
        files.MapDelete("/{id}", Delete).WithSummary("Delete a file");
        files.MapDownload("/{id}/content", Content).WithSummary("Download a file");
        files.MapPost("/{id}/validate", FileChecks.Validate).WithSummary("Check every row of a data file before training on it");
        files.MapPost("/{id}/preview", FileChecks.Preview).WithSummary("Show how the first rows become tokens, and which of them carry loss");
    }

    private static async Task<Results<Ok<FileResponse>, ErrorResult>> Create(
        HttpContext context, Caller caller, AppDbContext db, IArtifactStore store, TimeProvider clock, IOptions<UploadOptions> options,
        CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow();
        var id = Guid.CreateVersion7(now);
        var key = KeyOf(caller, id);
        var limit = options.Value.LargestFileBytes;
        StoredObject? stored = null;
        string? name = null;
        var kept = false;
        try
        {
            // The boundaries and the other fields come on top of the file.
            var fields = await MultipartForm.ReadAsync(context, limit + (1 << 20), async (field, fileName, content) =>
            {
                if (field != "file" || stored is not null)
                {
                    throw RequestException.Invalid("unknown_field", "The body takes one file, in the field 'file'.", field);
                }

                name = fileName;
                stored = await store.PutAsync(key, new LimitedStream(content, limit, "file"), "application/octet-stream", cancellationToken);
            }, cancellationToken);

            if (stored is null || name is null)
            {
                return ErrorResult.Invalid("missing_field", "The field 'file' with the file's content is missing.", "file");
            }

            var purpose = FilePurposes.Check(fields.GetValueOrDefault("purpose"));
            if (stored.Bytes == 0)
            {
                return ErrorResult.Invalid("empty_file", "The file is empty.", "file");
            }

            var file = new DataFile
            {
                Id = id,
                ProjectId = caller.ProjectId,
                FileName = name,
                Purpose = purpose,
                Bytes = stored.Bytes,
                Sha256 = stored.Sha256,
                StorageKey = key,
                CreatedAt = now,
                ExpiresAt = ExpiryOf(fields, now),
            };
            db.Files.Add(file);
            await db.SaveChangesAsync(cancellationToken);
            kept = true;
            return TypedResults.Ok(FileResponse.From(file));
        }
        finally
        {
            if (stored is not null && !kept)
            {
                await store.DeleteAsync(key, CancellationToken.None);
            }
        }
    }

    private static DateTimeOffset? ExpiryOf(IReadOnlyDictionary<string, string> fields, DateTimeOffset now)
    {
        const string seconds = "expires_after[seconds]";
        const string anchor = "expires_after[anchor]";
        if (!fields.TryGetValue(seconds, out var text))
        {
            return null;
        }

        int? life = int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var value) ? value : null;
        return now.AddSeconds(FilePurposes.CheckLifetime(fields.GetValueOrDefault(anchor), life, anchor, seconds));
    }

    private static async Task<Results<Ok<ListPage<FileResponse>>, ErrorResult>> List(
        Caller caller, AppDbContext db, CancellationToken cancellationToken,
        string? purpose = null, int? limit = null, string? order = null, string? after = null)
    {
        var size = ListPage.Limit(limit, LargestPage, LargestPage);
        if (order is not (null or "asc" or "desc"))
        {
            return ErrorResult.Invalid("invalid_order", "order must be asc or desc.", "order");
        }

        var files = db.Files.AsNoTracking().OwnedBy(caller);
        if (purpose is not null)
        {
            files = files.Where(file => file.Purpose == purpose);
        }

        if (after is not null)
        {
            var last = await db.Files.AsNoTracking().FindOwnedAsync(caller, after, cancellationToken) ?? throw ListPage.UnknownCursor(after);
            files = order == "asc"
                ? files.Where(file => file.CreatedAt > last.CreatedAt || (file.CreatedAt == last.CreatedAt && file.Id.CompareTo(last.Id) > 0))
                : files.Where(file => file.CreatedAt < last.CreatedAt || (file.CreatedAt == last.CreatedAt && file.Id.CompareTo(last.Id) < 0));
        }

        var sorted = order == "asc"
            ? files.OrderBy(file => file.CreatedAt).ThenBy(file => file.Id)
            : files.OrderByDescending(file => file.CreatedAt).ThenByDescending(file => file.Id);
        var rows = await sorted.Take(size + 1).ToListAsync(cancellationToken);
        return TypedResults.Ok(ListPage.Of(rows, size, FileResponse.From, file => file.Id));
    }

    private static async Task<Results<Ok<FileResponse>, ErrorResult>> Get(
        string id, Caller caller, AppDbContext db, CancellationToken cancellationToken) =>
        await db.Files.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken) is { } file
            ? TypedResults.Ok(FileResponse.From(file))
            : ErrorResult.NotFound("file", id);

    private static async Task<Results<DownloadResult, ErrorResult>> Content(
        string id, Caller caller, AppDbContext db, IArtifactStore store, CancellationToken cancellationToken) =>
        await db.Files.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken) is { } file
            ? new DownloadResult(
                store, file.StorageKey, file.FileName, "application/octet-stream", file.Bytes, file.Sha256, mayRedirect: false)
            : ErrorResult.NotFound("file", id);

    private static async Task<Results<Ok<DeletedResponse>, ErrorResult>> Delete(
        string id, Caller caller, AppDbContext db, IArtifactStore store, CancellationToken cancellationToken)
    {
        var file = await db.Files.FindOwnedAsync(caller, id, cancellationToken);
        if (file is null)
        {
            return ErrorResult.NotFound("file", id);
        }

        // The row first: bytes without a row are waste, a row without bytes is a lie.
        db.Files.Remove(file);
        await db.SaveChangesAsync(cancellationToken);
        if (file.StorageKey == KeyOf(caller, file.Id))   // a job's results stay with the job
        {
            await store.DeleteAsync(file.StorageKey, CancellationToken.None);
        }

        return TypedResults.Ok(new DeletedResponse(id, "file"));
    }

    private static string KeyOf(Caller caller, Guid id) => $"projects/{caller.ProjectId:N}/files/{id:N}";
}
