namespace TrainingService.Api.Auth;

/// <summary>Who may call.</summary>
internal sealed record AuthOptions
{
    public const string Section = "Auth";

    /// <summary>The key that clients send as bearer token; null: no key, and callers on this machine only.</summary>
    public string? ApiKey { get; init; }

    public override string ToString() => $"{nameof(AuthOptions)} {{ ApiKey = {(ApiKey is null ? "none" : "set")} }}";
}
