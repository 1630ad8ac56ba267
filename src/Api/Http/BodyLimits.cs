namespace TrainingService.Api.Http;

/// <summary>
/// Bounds the bodies that are read as a whole; forms bound themselves. The server's own limit is off: it hangs up on a client that
/// still sends, and the client then sees a broken connection instead of the reason.
/// </summary>
internal static class BodyLimits
{
    public static IApplicationBuilder UseBodyLimits(this IApplicationBuilder app, long largestBytes) => app.Use((context, next) =>
    {
        if (!context.Request.HasFormContentType)
        {
            Bound(context.Request, largestBytes, param: null);
        }

        return next(context);
    });

    /// <exception cref="RequestException">The body says of itself that it is larger; otherwise thrown when reading shows it.</exception>
    public static void Bound(HttpRequest request, long largestBytes, string? param)
    {
        if (request.ContentLength > largestBytes)
        {
            throw RequestException.TooLarge(largestBytes, param);
        }

        request.Body = new LimitedStream(request.Body, largestBytes, param);
    }
}
