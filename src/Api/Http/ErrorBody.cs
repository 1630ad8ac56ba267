using System.Text.Json.Serialization;

namespace TrainingService.Api.Http;

/// <summary>Every error of the service, as OpenAI's clients read it.</summary>
/// <param name="Error">The first error.</param>
/// <param name="Errors">All errors of an invalid request; left out when there is only one way to be wrong.</param>
internal sealed record ErrorBody(
    ErrorDetail Error,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<ErrorDetail>? Errors = null);

/// <param name="Message">One sentence that says what to change.</param>
/// <param name="Type"><c>invalid_request_error</c> when the client must act, <c>server_error</c> when we must.</param>
/// <param name="Param">JSON path of the member at fault, or the name of the parameter.</param>
/// <param name="Code">Stable code, for programs.</param>
internal sealed record ErrorDetail(string Message, string Type, string? Param, string? Code)
{
    public const string InvalidRequest = "invalid_request_error";
    public const string ServerError = "server_error";

    private const int LongestMessage = 4000;
    private const int LongestParam = 500;

    public static ErrorDetail Invalid(string code, string message, string? param = null) =>
        new(Shorten(message, LongestMessage), InvalidRequest, param is null ? null : Shorten(param, LongestParam), code);

    /// <summary>Names and values of a request stand in messages about it.</summary>
    private static string Shorten(string text, int most) => text.Length <= most ? text : text[..most] + "…";
}

/// <summary>A request that cannot be answered, thrown where a typed result would have to travel through several callers.</summary>
internal sealed class RequestException(int status, ErrorDetail error) : Exception(error.Message)
{
    public int Status { get; } = status;

    public ErrorDetail Error { get; } = error;

    public static RequestException Invalid(string code, string message, string? param = null) =>
        new(StatusCodes.Status400BadRequest, ErrorDetail.Invalid(code, message, param));

    public static RequestException TooLarge(long limit, string? param = null) => new(
        StatusCodes.Status413PayloadTooLarge,
        ErrorDetail.Invalid("request_too_large", $"The body is larger than the {limit:N0} bytes that are accepted here.", param));
}
