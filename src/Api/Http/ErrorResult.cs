using System.Reflection;
using Microsoft.AspNetCore.Http.Metadata;

namespace TrainingService.Api.Http;

/// <summary>An expected refusal, as a typed result.</summary>
internal sealed class ErrorResult : IResult, IStatusCodeHttpResult, IEndpointMetadataProvider
{
    private readonly int _status;
    private readonly ErrorBody _body;
    private readonly bool? _shouldRetry;

    private ErrorResult(int status, ErrorBody body, bool? shouldRetry = null)
    {
        _status = status;
        _body = body;
        _shouldRetry = shouldRetry;
    }

    int? IStatusCodeHttpResult.StatusCode => _status;

    /// <summary>404: the row does not exist, or belongs to somebody else.</summary>
    public static ErrorResult NotFound(string what, string id, string param = "id") => new(
        StatusCodes.Status404NotFound,
        new ErrorBody(ErrorDetail.Invalid("not_found", $"There is no {what} '{id}'.", param)));

    /// <summary>400 with one error.</summary>
    public static ErrorResult Invalid(string code, string message, string? param = null) =>
        Invalid([ErrorDetail.Invalid(code, message, param)]);

    /// <summary>400 with all errors; the first one stands where clients look for it.</summary>
    public static ErrorResult Invalid(IReadOnlyList<ErrorDetail> errors) =>
        new(StatusCodes.Status400BadRequest, new ErrorBody(errors[0], errors));

    /// <summary>409 that will be the same when it is sent again, and says so to clients that retry by themselves.</summary>
    public static ErrorResult Conflict(string code, string message, string? param = null) => new(
        StatusCodes.Status409Conflict, new ErrorBody(ErrorDetail.Invalid(code, message, param)), shouldRetry: false);

    public static ErrorResult Of(int status, ErrorDetail error) => new(status, new ErrorBody(error));

    public Task ExecuteAsync(HttpContext httpContext)
    {
        if (_shouldRetry is { } retry)
        {
            httpContext.Response.Headers["x-should-retry"] = retry ? "true" : "false";
        }

        httpContext.Response.StatusCode = _status;
        return httpContext.Response.WriteAsJsonAsync(_body, httpContext.RequestAborted);
    }

    static void IEndpointMetadataProvider.PopulateMetadata(MethodInfo method, EndpointBuilder builder) =>
        builder.Metadata.Add(new ProducesResponseTypeMetadata(
            StatusCodes.Status400BadRequest, typeof(ErrorBody), ["application/json"]));
}
