using System.ComponentModel.DataAnnotations;

namespace TrainingService.Infrastructure.Hub;

/// <summary>Section <c>Hub</c>: where base models come from by their hub id. The token stands elsewhere; this only says where.</summary>
public sealed record HubOptions : IValidatableObject
{
    public const string Section = "Hub";

    /// <summary>Address of the hub, or of a mirror that speaks its API; empty: no model is fetched from any hub.</summary>
    public string Endpoint { get; init; } = "https://huggingface.co";

    /// <summary>File that holds the access token, for gated and private models; read anew for every request, so that it may be renewed.</summary>
    public string? TokenFile { get; init; }

    /// <summary>Name of the environment variable that holds the access token; not together with <see cref="TokenFile"/>.</summary>
    public string? TokenVariable { get; init; }

    /// <summary>Whether a job may name a hub id (<c>org/name</c> or <c>org/name@revision</c>) that nobody registered: it is registered then.</summary>
    public bool InSpecs { get; init; } = true;

    /// <summary>Files that a repository may list in its first folder.</summary>
    [Range(1, 100_000)]
    public int MostFiles { get; init; } = 2000;

    /// <summary>Bytes that one file beside the weights may have: configuration, tokenizer, index of the shards.</summary>
    [Range(1, 1L << 32)]
    public long LargestSmallFileBytes { get; init; } = 64L << 20;

    /// <summary>Bytes that one file of weights may have.</summary>
    [Range(1, long.MaxValue)]
    public long LargestFileBytes { get; init; } = 64L << 30;

    /// <summary>Bytes that all files of a model may have together.</summary>
    [Range(1, long.MaxValue)]
    public long LargestModelBytes { get; init; } = 512L << 30;

    /// <summary>Seconds without an answer, or with next to no bytes of it, after which a connection counts as cut.</summary>
    [Range(0.05, 3600)]
    public double IdleSeconds { get; init; } = 30;

    /// <summary>Tries in a row that a download gets without any progress between them.</summary>
    [Range(1, 100)]
    public int Attempts { get; init; } = 6;

    /// <summary>Seconds before the second try; doubles with each further one, up to a minute. What the hub asks for (Retry-After) counts more.</summary>
    [Range(0, 60)]
    public double RetrySeconds { get; init; } = 1;

    internal TimeSpan Idle => TimeSpan.FromSeconds(IdleSeconds);

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (Endpoint.Length > 0 && !IsAddress(Endpoint))
        {
            yield return new ValidationResult(
                "Hub:Endpoint must be an address such as https://huggingface.co, without user, query or fragment; or empty.", [nameof(Endpoint)]);
        }

        if (!string.IsNullOrEmpty(TokenFile) && !string.IsNullOrEmpty(TokenVariable))
        {
            yield return new ValidationResult("Set Hub:TokenFile or Hub:TokenVariable, not both.", [nameof(TokenFile)]);
        }
    }

    private static bool IsAddress(string text) =>
        Uri.TryCreate(text, UriKind.Absolute, out var uri)
        && (uri.Scheme == Uri.UriSchemeHttps || uri.Scheme == Uri.UriSchemeHttp)
        && uri is { UserInfo.Length: 0, Query.Length: 0, Fragment.Length: 0 };
}
