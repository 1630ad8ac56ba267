using System.ComponentModel;
using System.Text.Json.Serialization;
using TrainingService.Api.Files;
using TrainingService.Api.Http;
using TrainingService.Domain;
using TrainingService.Domain.Files;

namespace TrainingService.Api.Uploads;

internal sealed record FileLifetime(
    [property: Description("created_at")] string Anchor,
    [property: Description("Seconds after which the file may be deleted, 3600 to 2592000.")] int Seconds);

/// <summary>A file that will be sent in parts.</summary>
internal sealed record CreateUploadRequest(
    [property: Description("Name of the file.")] string Filename,
    [property: Description("What it is for: fine-tune.")] string Purpose,
    [property: Description("Length of the whole file.")] long Bytes)
{
    [Description("Media type of the file; kept and shown, not relied on.")]
    public string? MimeType { get; init; }

    [Description("How long the file lives once it is complete; null: until it is deleted.")]
    public FileLifetime? ExpiresAfter { get; init; }
}

/// <summary>The end of an upload.</summary>
internal sealed record CompleteUploadRequest(
    [property: Description("The parts in the order in which they make up the file.")] IReadOnlyList<string> PartIds)
{
    [Description("MD5 of the whole file, in hexadecimal digits or base64, to be compared; null: the length alone is.")]
    public string? Md5 { get; init; }
}

/// <summary>An upload, as OpenAI's clients read it; <c>parts</c> is ours, and only where one upload is read.</summary>
internal sealed record UploadResponse(
    string Id, long Bytes, long CreatedAt, string Filename, string Purpose, string Status, long ExpiresAt, FileResponse? File)
{
    public string Object { get; } = "upload";

    public string? MimeType { get; init; }

    [Description("What has arrived so far, oldest first, so that a client can go on after an interruption.")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<UploadPartResponse>? Parts { get; init; }

    public static UploadResponse From(Upload upload, UploadStatus status, DataFile? file) => new(
        PublicId.Of(PublicId.Upload, upload.Id), upload.Bytes, Wire.UnixSeconds(upload.CreatedAt), upload.FileName, upload.Purpose,
        Wire.Name(status), Wire.UnixSeconds(upload.ExpiresAt), file is null ? null : FileResponse.From(file))
    {
        MimeType = upload.MimeType,
    };
}

/// <summary>A part, as OpenAI's clients read it; <c>bytes</c> and <c>sha256</c> are ours.</summary>
internal sealed record UploadPartResponse(string Id, long CreatedAt, string UploadId, long Bytes, string Sha256)
{
    public string Object { get; } = "upload.part";

    public static UploadPartResponse From(UploadPart part) => new(
        PublicId.Of(PublicId.UploadPart, part.Id), Wire.UnixSeconds(part.CreatedAt), PublicId.Of(PublicId.Upload, part.UploadId), part.Bytes, part.Sha256);
}
