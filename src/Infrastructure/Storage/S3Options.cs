using System.ComponentModel.DataAnnotations;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Section <c>S3</c>: an S3-compatible store. It holds a secret, so it prints nothing.</summary>
public sealed class S3Options
{
    public const string Section = "S3";

    /// <summary>Host and port, without a scheme.</summary>
    [Required(AllowEmptyStrings = false)]
    public string Endpoint { get; init; } = "";

    /// <summary>Host and port that clients reach, when it differs: presigned URLs carry it; null: <see cref="Endpoint"/>.</summary>
    public string? PublicEndpoint { get; init; }

    /// <summary>The account's name.</summary>
    [Required(AllowEmptyStrings = false)]
    public string AccessKey { get; init; } = "";

    /// <summary>The account's secret.</summary>
    [Required(AllowEmptyStrings = false)]
    public string SecretKey { get; init; } = "";

    /// <summary>Made when it is not there.</summary>
    [StringLength(63, MinimumLength = 3)]
    public string Bucket { get; init; } = "training";

    /// <summary>Signed into requests. Set, so that no network look-up is needed to presign.</summary>
    [Required(AllowEmptyStrings = false)]
    public string Region { get; init; } = "us-east-1";

    /// <summary>Whether the store is spoken to over HTTPS.</summary>
    public bool UseTls { get; init; } = true;
}
