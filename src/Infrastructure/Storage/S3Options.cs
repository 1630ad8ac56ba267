using System.ComponentModel.DataAnnotations;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Section <c>S3</c>: an S3-compatible store. It holds a secret, so it prints nothing.</summary>
public sealed class S3Options
{
    public const string Section = "S3";

    /// <summary>Host and port; <c>http://</c> or <c>https://</c> before it wins over <see cref="UseTls"/>.</summary>
    [Required(AllowEmptyStrings = false)]
    public string Endpoint { get; init; } = "";

    /// <summary>What clients reach instead, written alike, when it differs: presigned URLs carry it; null: <see cref="Endpoint"/>.</summary>
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

    /// <summary>Seconds within which a connection must stand.</summary>
    [Range(0.1, 600)]
    public double ConnectTimeoutSeconds { get; init; } = 10;

    /// <summary>Seconds without a byte either way after which a request is given up and tried again.</summary>
    [Range(0.1, 3600)]
    public double IdleTimeoutSeconds { get; init; } = 60;

    /// <summary>Seconds before a failed request is tried again; doubles with each of the four further tries.</summary>
    [Range(0.01, 60)]
    public double RetryDelaySeconds { get; init; } = 0.5;

    /// <summary>Reads each object back after it was stored and compares its sha256: twice the traffic, for stores that are not trusted.</summary>
    public bool VerifyByReading { get; init; }
}
