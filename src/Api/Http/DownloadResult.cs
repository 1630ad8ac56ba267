using System.Globalization;
using System.Reflection;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.Net.Http.Headers;
using TrainingService.Domain.Artifacts;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.Api.Http;

/// <summary>An object of the store: by a redirect to the store where it can serve clients itself, otherwise streamed, in ranges on demand.</summary>
internal sealed class DownloadResult(
    IArtifactStore store, string key, string downloadName, string contentType, long bytes, string sha256, bool mayRedirect) : IResult, IEndpointMetadataProvider
{
    private static readonly TimeSpan LinkLifetime = TimeSpan.FromMinutes(15);

    private EntityTagHeaderValue Tag => new($"\"{sha256}\"");

    public async Task ExecuteAsync(HttpContext httpContext)
    {
        var cancellationToken = httpContext.RequestAborted;
        var (request, response) = (httpContext.Request, httpContext.Response);
        response.Headers.ETag = Tag.ToString();
        if (request.GetTypedHeaders().IfNoneMatch.Any(tag => tag.Compare(Tag, useStrongComparison: false) || tag == EntityTagHeaderValue.Any))
        {
            response.StatusCode = StatusCodes.Status304NotModified;
            return;
        }

        // A link is signed for GET, so a HEAD is answered here.
        if (mayRedirect && HttpMethods.IsGet(request.Method)
            && await store.PresignAsync(key, downloadName, LinkLifetime, cancellationToken) is { } link)
        {
            response.Redirect(link.ToString());
            return;
        }

        response.Headers.AcceptRanges = "bytes";
        if (HttpMethods.IsHead(request.Method))
        {
            Describe(response, bytes);
            return;
        }

        var range = RangeOf(request);
        if (range is { } outside && outside.First >= bytes)
        {
            response.Headers.ContentRange = string.Create(CultureInfo.InvariantCulture, $"bytes */{bytes}");
            await ErrorResult.Of(
                StatusCodes.Status416RangeNotSatisfiable,
                ErrorDetail.Invalid("invalid_range", $"The file has {bytes} bytes.", "Range")).ExecuteAsync(httpContext);
            return;
        }

        // The whole is checked while it passes: a damaged object ends in a broken connection before its last bytes, not in a whole file.
        await using var content = range is null
            ? await store.OpenVerifiedAsync(key, bytes, sha256, cancellationToken)
            : await store.OpenReadAsync(key, range, cancellationToken);
        if (content is null)
        {
            throw new ArtifactStoreException($"'{key}' is missing in the artifact store.");
        }

        Describe(response, range is { } part ? part.Last - part.First + 1 : bytes);
        if (range is { } some)
        {
            response.StatusCode = StatusCodes.Status206PartialContent;
            response.Headers.ContentRange = string.Create(CultureInfo.InvariantCulture, $"bytes {some.First}-{some.Last}/{bytes}");
        }

        await content.CopyToAsync(response.Body, cancellationToken);
    }

    static void IEndpointMetadataProvider.PopulateMetadata(MethodInfo method, EndpointBuilder builder) =>
        builder.Metadata.Add(new ProducesResponseTypeMetadata(StatusCodes.Status200OK, typeof(Stream), ["application/octet-stream"]));

    private void Describe(HttpResponse response, long length)
    {
        response.Headers.XContentTypeOptions = "nosniff";
        response.Headers.ContentDisposition = DownloadName.Disposition(downloadName);
        response.ContentType = contentType;
        response.ContentLength = length;
    }

    /// <summary>The one range that is asked for; null: all. Several ranges are answered with all, as the protocol allows.</summary>
    private (long First, long Last)? RangeOf(HttpRequest request)
    {
        var headers = request.GetTypedHeaders();
        if (headers.Range is not { Unit.Value: "bytes", Ranges: { Count: 1 } ranges } || bytes == 0)
        {
            return null;
        }

        // A resumed download names the version that it began with. We give no dates, so a date names none of ours.
        if (headers.IfRange is { } condition && condition.EntityTag?.Compare(Tag, useStrongComparison: true) != true)
        {
            return null;
        }

        var asked = ranges.First();
        var first = asked.From ?? Math.Max(0, bytes - asked.To!.Value);
        var last = asked.From is null ? bytes - 1 : Math.Min(asked.To ?? long.MaxValue, bytes - 1);
        return (first, last);
    }
}

internal static class Downloads
{
    /// <summary>Maps a download for GET and, undocumented as everywhere, for HEAD.</summary>
    public static RouteHandlerBuilder MapDownload(this IEndpointRouteBuilder routes, string pattern, Delegate handler)
    {
        routes.MapMethods(pattern, [HttpMethods.Head], handler).ExcludeFromDescription();
        return routes.MapGet(pattern, handler);
    }
}
