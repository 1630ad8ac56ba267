using TrainingService.Api.Http;
using TrainingService.Domain;
using TrainingService.Domain.Files;

namespace TrainingService.Api.Files;

/// <summary>A file, as OpenAI's clients read it; <c>sha256</c> is ours.</summary>
internal sealed record FileResponse(
    string Id, long Bytes, long CreatedAt, long? ExpiresAt, string Filename, string Purpose, string Status, string? StatusDetails, string Sha256)
{
    public string Object { get; } = "file";

    public static FileResponse From(DataFile file) => new(
        PublicId.Of(PublicId.File, file.Id), file.Bytes, Wire.UnixSeconds(file.CreatedAt), Wire.UnixSeconds(file.ExpiresAt),
        file.FileName, file.Purpose, "processed", null, file.Sha256);
}

internal sealed record DeletedResponse(string Id, string Object)
{
    public bool Deleted { get; } = true;
}
