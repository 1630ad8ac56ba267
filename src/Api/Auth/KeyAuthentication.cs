using System.Net;
using System.Security.Claims;
using System.Security.Cryptography;
using System.Text;
using System.Text.Encodings.Web;
using Microsoft.AspNetCore.Authentication;
using Microsoft.Extensions.Options;

namespace TrainingService.Api.Auth;

/// <summary>Admits callers that carry the key; without a configured key, callers on this machine.</summary>
internal sealed class KeyAuthentication(
    IOptionsMonitor<AuthenticationSchemeOptions> options,
    ILoggerFactory logger,
    UrlEncoder encoder,
    IOptions<AuthOptions> auth) : AuthenticationHandler<AuthenticationSchemeOptions>(options, logger, encoder)
{
    public const string SchemeName = "key";

    protected override Task<AuthenticateResult> HandleAuthenticateAsync() =>
        Task.FromResult(auth.Value.ApiKey is { } key ? CheckKey(key) : CheckLocal());

    private AuthenticateResult CheckKey(string key)
    {
        var header = Request.Headers.Authorization.ToString();
        const string prefix = "Bearer ";
        if (!header.StartsWith(prefix, StringComparison.OrdinalIgnoreCase))
        {
            return AuthenticateResult.NoResult();
        }

        // Hashes are equally long, so the comparison tells nothing of the key, not even its length.
        var given = SHA256.HashData(Encoding.UTF8.GetBytes(header[prefix.Length..].Trim()));
        return CryptographicOperations.FixedTimeEquals(given, SHA256.HashData(Encoding.UTF8.GetBytes(key)))
            ? Admit("key")
            : AuthenticateResult.Fail("Wrong key.");
    }

    /// <summary>
    /// A web page that the user has open elsewhere also sends from this machine: its origin is foreign, or its host name is one that
    /// was made to point here.
    /// </summary>
    private AuthenticateResult CheckLocal()
    {
        var isLocal = Context.Connection.RemoteIpAddress is { } address && IPAddress.IsLoopback(address);
        var isNamedLocal = IsLoopback(Request.Host.Host);
        var origin = Request.Headers.Origin.ToString();
        var isOwnPage = origin.Length == 0
            || (Uri.TryCreate(origin, UriKind.Absolute, out var page) && page.Authority == Request.Host.Value);
        return isLocal && isNamedLocal && isOwnPage
            ? Admit("local")
            : AuthenticateResult.Fail("Without a key, only this machine is served.");
    }

    private static AuthenticateResult Admit(string name)
    {
        var identity = new ClaimsIdentity([new Claim(ClaimTypes.Name, name)], SchemeName);
        return AuthenticateResult.Success(new AuthenticationTicket(new ClaimsPrincipal(identity), SchemeName));
    }

    public static bool IsLoopback(string host) =>
        string.Equals(host, "localhost", StringComparison.OrdinalIgnoreCase)
        || (IPAddress.TryParse(host.Trim('[', ']'), out var address) && IPAddress.IsLoopback(address));
}
