using System.Text;
using Microsoft.AspNetCore.WebUtilities;
using Microsoft.Net.Http.Headers;

namespace TrainingService.Api.Http;

/// <summary>Reads a multipart body as it arrives: fields are kept, files are handed on as streams.</summary>
internal static class MultipartForm
{
    private const int LongestField = 64 * 1024;
    private const int MostFields = 100;
    private const int LongestName = 255;

    /// <param name="largestBody">Bytes that the whole body may have.</param>
    /// <param name="onFile">Consumes one file: name of the field, name of the file, content.</param>
    public static async Task<IReadOnlyDictionary<string, string>> ReadAsync(
        HttpContext context, long largestBody, Func<string, string, Stream, Task> onFile, CancellationToken cancellationToken)
    {
        BodyLimits.Bound(context.Request, largestBody, "file");
        var reader = new MultipartReader(BoundaryOf(context.Request), context.Request.Body);
        var fields = new Dictionary<string, string>(StringComparer.Ordinal);
        try
        {
            while (await reader.ReadNextSectionAsync(cancellationToken) is { } section)
            {
                if (!ContentDispositionHeaderValue.TryParse(section.ContentDisposition, out var disposition)
                    || Unquote(disposition.Name) is not { Length: > 0 } name)
                {
                    throw RequestException.Invalid("invalid_multipart", "Each part of the body must have a Content-Disposition with a name.");
                }

                var fileName = Unquote(disposition.FileNameStar) ?? Unquote(disposition.FileName);
                if (fileName is not null)
                {
                    await onFile(name, SafeName(fileName), section.Body);
                    continue;
                }

                if (fields.Count == MostFields)
                {
                    throw RequestException.Invalid("invalid_multipart", $"The body has more than {MostFields} fields.");
                }

                fields[name] = await ReadField(name, section.Body, cancellationToken);
            }
        }
        catch (InvalidDataException broken)
        {
            throw RequestException.Invalid("invalid_multipart", $"The multipart body cannot be read: {broken.Message}");
        }
        catch (IOException broken) when (broken is not BadHttpRequestException && broken is not FileNotFoundException
            && broken.Message.Contains("Unexpected end of Stream", StringComparison.Ordinal))
        {
            throw RequestException.Invalid("invalid_multipart", "The multipart body ends before its last boundary.");
        }

        return fields;
    }

    private static string BoundaryOf(HttpRequest request)
    {
        if (MediaTypeHeaderValue.TryParse(request.ContentType, out var type)
            && type.MediaType.Equals("multipart/form-data", StringComparison.OrdinalIgnoreCase)
            && Unquote(type.Boundary) is { Length: > 0 and <= 200 } boundary)
        {
            return boundary;
        }

        throw new RequestException(
            StatusCodes.Status415UnsupportedMediaType,
            ErrorDetail.Invalid("unsupported_media_type", "The body must be multipart/form-data with a boundary."));
    }

    private static async Task<string> ReadField(string name, Stream body, CancellationToken cancellationToken)
    {
        var buffer = new byte[LongestField + 1];
        var length = await body.ReadAtLeastAsync(buffer, buffer.Length, throwOnEndOfStream: false, cancellationToken);
        return length <= LongestField
            ? Encoding.UTF8.GetString(buffer, 0, length)
            : throw RequestException.Invalid("invalid_multipart", $"The field is longer than {LongestField} bytes.", name);
    }

    private static string? Unquote(Microsoft.Extensions.Primitives.StringSegment value) =>
        value.HasValue ? HeaderUtilities.RemoveQuotes(value).ToString() : null;

    /// <summary>Characters that make "txt.exe" look like "exe.txt".</summary>
    private static bool TurnsDirection(char letter) =>
        letter is '\u200E' or '\u200F' or '\u061C' or (>= '\u202A' and <= '\u202E') or (>= '\u2066' and <= '\u2069');

    /// <summary>The last part of a path of any system, without control characters and those that turn the direction of a text.</summary>
    public static string SafeName(string name)
    {
        var last = name[(name.LastIndexOfAny(['/', '\\']) + 1)..];
        var printable = new string([.. last.Where(letter => !char.IsControl(letter) && !TurnsDirection(letter))]).Trim();
        var cut = printable.Length <= LongestName ? printable : printable[^LongestName..];
        var whole = cut.Length > 0 && char.IsLowSurrogate(cut[0]) ? cut[1..] : cut;
        return whole is "" or "." or ".." ? "file" : whole;
    }
}
