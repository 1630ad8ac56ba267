using System.Text;
using System.Text.Json;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Data.Rows;

/// <summary>One JSON object as a row.</summary>
internal static class JsonRow
{
    /// <summary>Values of a row, in all its depth. A parsed value takes some ten times the memory of its shortest text.</summary>
    private const int MostValues = 4 * 1024 * 1024;

    private static readonly JsonDocumentOptions Options = new() { AllowDuplicateProperties = false };

    /// <param name="line">Line of the file on which the bytes begin, when a row may span several; it then stands in the message.</param>
    /// <param name="column">One-based character of that line at which the bytes begin.</param>
    /// <exception cref="RowException">The bytes are not UTF-8, not JSON, or not an object.</exception>
    public static IReadOnlyDictionary<string, JsonElement> Parse(ReadOnlySpan<byte> bytes, int? line = null, int column = 1)
    {
        RowBytes.CheckUtf8(bytes);
        JsonElement element;
        try
        {
            CheckCount(bytes);
            element = JsonElement.Parse(bytes, Options);
        }
        catch (JsonException malformed)
        {
            throw new RowException(Malformed(bytes, malformed, line, column));
        }
        catch (InvalidOperationException error) when (HostileJson.IsMalformed(error))   // two names are compared, and one of them is no text
        {
            throw HalfCharacter();
        }

        if (element.ValueKind != JsonValueKind.Object)
        {
            throw new RowException("not_an_object", $"a row must be a JSON object, found {Fields.Describe(element)}");
        }

        var count = element.GetPropertyCount();
        if (count == 0)
        {
            throw new RowException("no_columns", "the row is an empty object; give it columns, or remove it");
        }

        if (count > Row.MostColumns)
        {
            throw TooManyColumns(count);
        }

        return element.EnumerateObject().ToDictionary(Name, property => property.Value);
    }

    public static RowException TooManyColumns(int count) => new(
        "too_many_columns", $"the row has {count} columns, and at most {Row.MostColumns} are read; keep those that are trained on");

    public static RowException LongName(string name) => new(
        "column_name_too_long", $"a column's name has {name.Length} characters, and at most {Row.LongestName} are read; rename '{name[..40]}…'");

    /// <summary>Walks over a long row before it is held in parsed form.</summary>
    private static void CheckCount(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length <= MostValues)
        {
            return;
        }

        var reader = new Utf8JsonReader(bytes);
        for (var values = 1; reader.Read(); values++)
        {
            if (values > MostValues)
            {
                throw new RowException("row_too_large", $"the row holds more than {MostValues} values; divide it into several rows");
            }
        }
    }

    private static string Name(JsonProperty property)
    {
        try
        {
            return property.Name.Length <= Row.LongestName ? property.Name : throw LongName(property.Name);
        }
        catch (InvalidOperationException)   // half of a surrogate pair, such as \ud83d alone
        {
            throw HalfCharacter();
        }
    }

    private static RowException HalfCharacter() => new("invalid_text", "a name in the row holds a \\u escape that is half of a character");

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
