using System.Globalization;
using System.Reflection;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.Net.Http.Headers;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Api.Http;

/// <summary>An object of the store: by a redirect to the store where it can serve clients itself, otherwise streamed, in ranges on demand.</summary>
internal sealed class DownloadResult(
    IArtifactStore store, string key, string downloadName, string contentType, long bytes, string sha256, bool mayRedirect) : IResult, IEndpointMetadataProvider
{
    private static readonly TimeSpan LinkLifetime = TimeSpan.FromMinutes(15);

    public async Task ExecuteAsync(HttpContext httpContext)
    {
        var cancellationToken = httpContext.RequestAborted;
        var response = httpContext.Response;
        if (mayRedirect && await store.PresignAsync(key, downloadName, LinkLifetime, cancellationToken) is { } link)
        {
            response.Redirect(link.ToString());
            return;
        }

        var range = RangeOf(httpContext.Request);
        if (range is { } outside && outside.First >= bytes)
        {
            response.Headers.ContentRange = string.Create(CultureInfo.InvariantCulture, $"bytes */{bytes}");
            await ErrorResult.Of(
                StatusCodes.Status416RangeNotSatisfiable,
                ErrorDetail.Invalid("invalid_range", $"The file has {bytes} bytes.", "Range")).ExecuteAsync(httpContext);
            return;
        }

        await using var content = await store.OpenReadAsync(key, range, cancellationToken);
        if (content is null)
        {
            await ErrorResult.NotFound("stored file", downloadName).ExecuteAsync(httpContext);
            return;
        }

        response.Headers.AcceptRanges = "bytes";
        response.Headers.ETag = $"\"{sha256}\"";
        response.Headers.XContentTypeOptions = "nosniff";
        response.ContentType = contentType;
        var disposition = new ContentDispositionHeaderValue("attachment");
        disposition.SetHttpFileName(downloadName);
        response.Headers.ContentDisposition = disposition.ToString();
        response.ContentLength = range is { } part ? part.Last - part.First + 1 : bytes;
        if (range is { } some)
        {
            response.StatusCode = StatusCodes.Status206PartialContent;
            response.Headers.ContentRange = string.Create(CultureInfo.InvariantCulture, $"bytes {some.First}-{some.Last}/{bytes}");
        }

        await content.CopyToAsync(response.Body, cancellationToken);
    }

    static void IEndpointMetadataProvider.PopulateMetadata(MethodInfo method, EndpointBuilder builder) =>
        builder.Metadata.Add(new ProducesResponseTypeMetadata(StatusCodes.Status200OK, typeof(Stream), ["application/octet-stream"]));

    /// <summary>The one range that is asked for; null: all. Several ranges are answered with all, as the protocol allows.</summary>
    private (long First, long Last)? RangeOf(HttpRequest request)
    {
        if (request.GetTypedHeaders().Range is not { Unit.Value: "bytes", Ranges: { Count: 1 } ranges } || bytes == 0)
        {
            return null;
        }

        // A resumed download names the version that it began with.
        if (request.GetTypedHeaders().IfRange?.EntityTag is { } tag && tag.Tag != $"\"{sha256}\"")
        {
            return null;
        }

        var asked = ranges.First();
        var first = asked.From ?? Math.Max(0, bytes - asked.To!.Value);
        var last = asked.From is null ? bytes - 1 : Math.Min(asked.To ?? long.MaxValue, bytes - 1);
        return (first, last);
    }
}
