using System.Text;
using System.Text.Json;

namespace TrainingService.Training.Data.Rows;

/// <summary>One JSON object as a row.</summary>
internal static class JsonRow
{
    private static readonly JsonDocumentOptions Options = new() { AllowDuplicateProperties = false };

    /// <param name="line">Line of the file on which the bytes begin, when a row may span several; it then stands in the message.</param>
    /// <param name="column">One-based character of that line at which the bytes begin.</param>
    /// <exception cref="RowException">The bytes are not UTF-8, not JSON, or not an object.</exception>
    public static IReadOnlyDictionary<string, JsonElement> Parse(RowBytes bytes, int? line = null, int column = 1)
    {
        bytes.CheckUtf8();
        JsonElement element;
        try
        {
            element = JsonElement.Parse(bytes.Span, Options);
        }
        catch (JsonException malformed)
        {
            throw new RowException(Malformed(bytes.Span, malformed, line, column));
        }

        if (element.ValueKind != JsonValueKind.Object)
        {
            throw new RowException("not_an_object", $"a row must be a JSON object, found {Fields.Describe(element)}");
        }

        return element.EnumerateObject().ToDictionary(property => property.Name, property => property.Value);
    }

    private static RowFault Malformed(ReadOnlySpan<byte> bytes, JsonException malformed, int? line, int column)
    {
        // The reader appends its own byte-based position; ours is in characters.
        var reason = malformed.Message;
        foreach (var tail in new[] { " Path:", " LineNumber:" })
        {
            var cut = reason.IndexOf(tail, StringComparison.Ordinal);
            reason = cut < 0 ? reason : reason[..cut];
        }

        reason = reason.TrimEnd('.', ' ');
        if (malformed.LineNumber is not { } lines || malformed.BytePositionInLine is not { } position)
        {
            return new("malformed_json", $"not valid JSON: {reason}");
        }

        var start = 0;
        for (var i = 0L; i < lines; i++)
        {
            start += bytes[start..].IndexOf((byte)'\n') + 1;
        }

        var at = Math.Min(start + (int)position, bytes.Length);
        var characters = Encoding.UTF8.GetCharCount(bytes[start..at]) + (lines == 0 ? column : 1);
        var place = line is null ? "" : $" (line {line + lines} of the file)";
        return new("malformed_json", $"not valid JSON{place}: {reason}", Column: characters);
    }
}
