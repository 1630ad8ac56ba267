using System.Data.Common;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Diagnostics;
using Microsoft.EntityFrameworkCore;
using TrainingService.Domain;
using TrainingService.Training;

namespace TrainingService.Api.Http;

/// <summary>Gives every failure of a request the one error envelope, and logs the ones that are ours.</summary>
internal sealed partial class ErrorHandling(ILogger<ErrorHandling> logger) : IExceptionHandler
{
    private const string RetrySeconds = "10";

    public async ValueTask<bool> TryHandleAsync(HttpContext httpContext, Exception exception, CancellationToken cancellationToken)
    {
        if (exception is OperationCanceledException && httpContext.RequestAborted.IsCancellationRequested)
        {
            httpContext.Response.StatusCode = StatusCodes.Status499ClientClosedRequest;
            return true;
        }

        var result = exception switch
        {
            RequestException refused => ErrorResult.Of(refused.Status, refused.Error),
            DomainException broken => ErrorResult.Conflict(broken.Code, broken.Message),
            TrainingException { Code: FailureCode.InvalidData or FailureCode.InvalidSpec } invalid =>
                ErrorResult.Invalid(Wire.Name(invalid.Code), invalid.Message, invalid.Param),
            BadHttpRequestException bad => ErrorResult.Of(bad.StatusCode, Describe(bad)),
            _ when IsBrokenText(exception) => ErrorResult.Invalid(
                "invalid_text", "The request holds text that cannot be kept: half of a character (such as \\ud800 alone), a NUL, or bytes that are no UTF-8."),
            _ => null,
        };
        if (result is null && Outage.ResultFor(exception) is { } outage)
        {
            Unavailable(exception, httpContext.Request.Method, httpContext.Request.Path, RequestIds.Of(httpContext));
            httpContext.Response.Headers.RetryAfter = Outage.RetryAfterSeconds;
            result = outage;
        }

        if (result is null)
        {
            var requestId = RequestIds.Of(httpContext);
            Unhandled(exception, httpContext.Request.Method, httpContext.Request.Path, requestId);
            result = ErrorResult.Of(StatusCodes.Status500InternalServerError, new ErrorDetail(
                $"The service failed to answer. Its log has the details under request {requestId}.",
                ErrorDetail.ServerError, null, "internal"));
        }

        if (exception is RequestException { Status: StatusCodes.Status429TooManyRequests })
        {
            httpContext.Response.Headers.RetryAfter = RetrySeconds;
        }

        await result.ExecuteAsync(httpContext);
        return true;
    }

    /// <summary>
    /// Whether the cause is a text that is no Unicode, or that the database cannot hold. The reader of JSON notices the one when the text is
    /// asked for, wherever that is; PostgreSQL the other when it gets it (22021 and, within JSON, 22P05).
    /// </summary>
    private static bool IsBrokenText(Exception exception) => exception switch
    {
        InvalidOperationException { Source: { } source } => source.StartsWith("System.Text.Json", StringComparison.Ordinal),
        EncoderFallbackException or DbException { SqlState: "22021" or "22P05" } => true,
        DbUpdateException or JsonException when exception.InnerException is { } inner => IsBrokenText(inner),
        _ => false,
    };

    /// <summary>Gives an answer without a body, such as the router's 404 and 405, the envelope.</summary>
    public static Task WriteEmptyStatus(StatusCodeContext context)
    {
        var request = context.HttpContext.Request;
        var status = context.HttpContext.Response.StatusCode;
        var error = status switch
        {
            StatusCodes.Status401Unauthorized => ErrorDetail.Invalid(
                "invalid_api_key", "The Authorization header must carry a valid key: 'Authorization: Bearer <key>'."),
            StatusCodes.Status404NotFound => ErrorDetail.Invalid(
                "unknown_url", $"There is nothing at {request.Method} {request.Path}. The API is described at /swagger."),
            StatusCodes.Status405MethodNotAllowed => ErrorDetail.Invalid(
                "method_not_allowed", $"{request.Path} does not take {request.Method}. The API is described at /swagger."),
            StatusCodes.Status415UnsupportedMediaType => ErrorDetail.Invalid(
                "unsupported_media_type", $"{request.Path} does not take a body of type '{request.ContentType}'."),
            _ => ErrorDetail.Invalid("http_" + status, $"{request.Method} {request.Path} was refused with status {status}."),
        };
        return ErrorResult.Of(status, error).ExecuteAsync(context.HttpContext);
    }

    private static ErrorDetail Describe(BadHttpRequestException exception) => exception switch
    {
        { InnerException: JsonException json } => DescribeJson(json),
        { StatusCode: StatusCodes.Status413PayloadTooLarge } =>
            ErrorDetail.Invalid("request_too_large", "The body is larger than what is accepted here."),
        { StatusCode: StatusCodes.Status415UnsupportedMediaType } =>
            ErrorDetail.Invalid("unsupported_media_type", "The body must be JSON: send 'Content-Type: application/json'."),
        _ => ErrorDetail.Invalid("bad_request", exception.Message),
    };

    private static ErrorDetail DescribeJson(JsonException exception)
    {
        var where = exception is { LineNumber: { } line, BytePositionInLine: { } column }
            ? $" at line {line + 1}, column {column + 1}"
            : "";
        var path = exception.Path is null or "$" ? null : exception.Path.Replace("$.", "", StringComparison.Ordinal);

        // The reader repeats the position in its own words, zero-based.
        var reason = exception.Message.Split(" Path: ", 2)[0].Split(" LineNumber: ", 2)[0];
        return ErrorDetail.Invalid("invalid_json", $"The body is not the JSON that is expected{where}: {reason}", path);
    }

    [LoggerMessage(1, LogLevel.Error, "{Method} {Path} failed, request {RequestId}")]
    private partial void Unhandled(Exception exception, string method, string path, string requestId);

    [LoggerMessage(2, LogLevel.Warning, "{Method} {Path} was put off, request {RequestId}: something that the service stands on failed")]
    private partial void Unavailable(Exception exception, string method, string path, string requestId);
}
