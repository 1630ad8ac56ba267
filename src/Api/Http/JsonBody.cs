using System.Text.Json;

namespace TrainingService.Api.Http;

/// <summary>A JSON body that is read by hand, where a handler takes several kinds of body or needs its bytes.</summary>
internal static class JsonBody
{
    /// <summary>Reads the body; what is wrong with it becomes the same error as in a bound parameter.</summary>
    public static async Task<T> ReadAsync<T>(HttpContext context, CancellationToken cancellationToken)
        where T : notnull
    {
        if (!context.Request.HasJsonContentType())
        {
            throw new BadHttpRequestException("The body must be JSON.", StatusCodes.Status415UnsupportedMediaType);
        }

        try
        {
            var value = await context.Request.ReadFromJsonAsync<T>(cancellationToken);
            return value ?? throw RequestException.Invalid("invalid_json", "The body must be a JSON object, and is null.");
        }
        catch (JsonException broken)
        {
            throw new BadHttpRequestException(broken.Message, StatusCodes.Status400BadRequest, broken);
        }
    }
}
