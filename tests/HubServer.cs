using System.Collections.Concurrent;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Xunit;

namespace TrainingService.Tests;

/// <summary>
/// A small hub with one repository: the API, the small files, and the large ones behind a redirect to another port. A test bends it by
/// answering requests in its place.
/// </summary>
internal sealed class HubServer : IAsyncDisposable
{
    public const string Model = "org/tiny";

    public static readonly string Commit = new('c', 40);

    private readonly WebApplication _app;

    private HubServer(WebApplication app) => _app = app;

    /// <summary>File name to content. What ends in <c>.safetensors</c> is a large file.</summary>
    public Dictionary<string, byte[]> Files { get; } = new(StringComparer.Ordinal);

    /// <summary>Every request: port, path, and the headers that matter.</summary>
    public ConcurrentQueue<SeenRequest> Seen { get; } = [];

    /// <summary>Answers in the server's place; false: let it go on.</summary>
    public Func<HttpContext, Task<bool>> Bend { get; set; } = _ => Task.FromResult(false);

    /// <summary>The token that the hub wants; null: it is open to all.</summary>
    public string? Token { get; set; }

    /// <summary>Entries of the listing as they go out.</summary>
    public Func<JsonArray, JsonArray> Listing { get; set; } = entries => entries;

    public string Url { get; private set; } = "";

    public string CdnUrl { get; private set; } = "";

    public static async Task<HubServer> StartAsync()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Listen(IPAddress.Loopback, 0);
            kestrel.Listen(IPAddress.Loopback, 0);
        });
        var app = builder.Build();
        var server = new HubServer(app);
        app.Run(server.AnswerAsync);
        await app.StartAsync(TestContext.Current.CancellationToken);
        var addresses = app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.ToList();
        (server.Url, server.CdnUrl) = (addresses[0], addresses[1]);
        return server;
    }

    public async ValueTask DisposeAsync()
    {
        using var now = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        await _app.StopAsync(now.Token);
        await _app.DisposeAsync();
    }

    public static bool IsCdn(HttpContext context) => context.Request.Path.StartsWithSegments("/cdn", StringComparison.Ordinal);

    public static bool IsListing(HttpContext context) => context.Request.Path.Value!.Contains("/tree/", StringComparison.Ordinal);

    public static bool IsAbout(HttpContext context) => context.Request.Path.Value!.Contains("/revision/", StringComparison.Ordinal);

    public static string Sha256(byte[] content) => Convert.ToHexStringLower(SHA256.HashData(content));

    [SuppressMessage("Security", "CA5350", Justification = "Git names its files by SHA-1.")]
    public static string GitSha1(byte[] content) => Convert.ToHexStringLower(
        SHA1.HashData([.. Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"blob {content.Length}\0")), .. content]));

    public static async Task<bool> JsonAsync(HttpContext context, string json)
    {
        context.Response.ContentType = "application/json; charset=utf-8";
        await context.Response.WriteAsync(json);
        return true;
    }

    public static bool Status(HttpContext context, int status, string? errorCode = null)
    {
        context.Response.StatusCode = status;
        if (errorCode is not null)
        {
            context.Response.Headers["X-Error-Code"] = errorCode;
        }

        return true;
    }

    public static bool Redirect(HttpContext context, string address)
    {
        context.Response.StatusCode = 302;
        context.Response.Headers.Location = address;
        return true;
    }

    /// <summary>Cuts the connection at once, in the middle of whatever was sent.</summary>
    public static bool Cut(HttpContext context)
    {
        context.Abort();
        return true;
    }

    private async Task AnswerAsync(HttpContext context)
    {
        var request = context.Request;
        Seen.Enqueue(new SeenRequest(
            context.Connection.LocalPort, request.Path.Value!, request.Headers.Authorization, request.Headers.Range, request.Headers.IfRange));
        if (await Bend(context))
        {
            return;
        }

        if (Token is not null && !IsCdn(context) && request.Headers.Authorization != $"Bearer {Token}")
        {
            Status(context, 401, "RepoNotFound");
            return;
        }

        var path = request.Path.Value!;
        if (path.StartsWith($"/api/models/{Model}/revision/", StringComparison.Ordinal))
        {
            await AboutAsync(context, path[(path.LastIndexOf('/') + 1)..]);
        }
        else if (path == $"/api/models/{Model}/tree/{Commit}")
        {
            await JsonAsync(context, Listing(Entries()).ToJsonString());
        }
        else if (path.StartsWith($"/{Model}/resolve/{Commit}/", StringComparison.Ordinal) && Files.ContainsKey(NameIn(path)))
        {
            await ResolveAsync(context, NameIn(path));
        }
        else if (IsCdn(context) && Files.ContainsKey(NameIn(path)))
        {
            await ContentAsync(context, Files[NameIn(path)], Sha256(Files[NameIn(path)]));
        }
        else
        {
            Status(context, 404, "RepoNotFound");
        }
    }

    private static string NameIn(string path) => path[(path.LastIndexOf('/') + 1)..];

    private static Task AboutAsync(HttpContext context, string revision)
    {
        if (revision == "main" || revision == Commit)
        {
            return JsonAsync(context, new JsonObject { ["id"] = Model, ["sha"] = Commit, ["private"] = false, ["gated"] = false }.ToJsonString());
        }

        Status(context, 404, "RevisionNotFound");
        return Task.CompletedTask;
    }

    private JsonArray Entries() => [.. Files.Select(JsonNode (file) => IsLarge(file.Key)
        ? new JsonObject
        {
            ["type"] = "file",
            ["oid"] = new string('e', 40),
            ["size"] = file.Value.Length,
            ["path"] = file.Key,
            ["lfs"] = new JsonObject { ["oid"] = Sha256(file.Value), ["size"] = file.Value.Length, ["pointerSize"] = 130 },
        }
        : new JsonObject { ["type"] = "file", ["oid"] = GitSha1(file.Value), ["size"] = file.Value.Length, ["path"] = file.Key })];

    private static bool IsLarge(string name) => name.EndsWith(".safetensors", StringComparison.Ordinal);

    private Task ResolveAsync(HttpContext context, string name)
    {
        context.Response.Headers["X-Repo-Commit"] = Commit;
        if (!IsLarge(name))
        {
            return ContentAsync(context, Files[name], GitSha1(Files[name]));
        }

        context.Response.Headers["X-Linked-Etag"] = $"\"{Sha256(Files[name])}\"";
        context.Response.Headers["X-Linked-Size"] = Files[name].Length.ToString(CultureInfo.InvariantCulture);
        Redirect(context, $"{CdnUrl}/cdn/{name}?signature=secret");
        return Task.CompletedTask;
    }

    private static Task ContentAsync(HttpContext context, byte[] content, string tag) => Results.Bytes(
        content, "application/octet-stream", entityTag: new Microsoft.Net.Http.Headers.EntityTagHeaderValue($"\"{tag}\""), enableRangeProcessing: true)
        .ExecuteAsync(context);
}

/// <summary>A request as the hub saw it.</summary>
internal sealed record SeenRequest(int Port, string Path, string? Authorization, string? Range, string? IfRange)
{
    public bool IsCdn => Path.StartsWith("/cdn/", StringComparison.Ordinal);
}
