using System.Text.Json;

namespace TrainingService.Training.Data.Rows;

/// <summary>The columns of one row, read with their type; a broken rule names the column.</summary>
/// <param name="path">Where these columns stand within the row, when they are the members of an object in it.</param>
internal sealed class Fields(IReadOnlyDictionary<string, JsonElement> columns, string? path = null)
{
    public bool Has(string name) => columns.TryGetValue(name, out var value) && value.ValueKind != JsonValueKind.Null;

    public JsonElement this[string name] => Has(name)
        ? columns[name]
        : throw new RowException("missing_column", $"'{name}' is missing or null", path is null ? name : $"{path}.{name}");

    public string Text(string name) => Text(this[name], name);

    /// <summary>Empty when there is no such column.</summary>
    public string OptionalText(string name) => Has(name) ? Text(name) : "";

    /// <summary>The elements of an array; in CSV, where every value is text, of the JSON array that the text spells.</summary>
    public IReadOnlyList<JsonElement> List(string name) => List(this[name], name);

    /// <summary>The members of an object.</summary>
    public Fields Object(string name) => Object(this[name], path is null ? name : $"{path}.{name}");

    /// <inheritdoc cref="Object(string)"/>
    public static Fields Object(JsonElement value, string field) => value.ValueKind == JsonValueKind.Object
        ? new(value.EnumerateObject().ToDictionary(member => member.Name, member => member.Value), field)
        : throw new RowException("wrong_type", $"must be an object, found {Describe(value)}", field);

    public static string Text(JsonElement value, string field)
    {
        if (value.ValueKind != JsonValueKind.String)
        {
            throw new RowException("wrong_type", $"must be a string, found {Describe(value)}", field);
        }

        try
        {
            return value.GetString()!;
        }
        catch (InvalidOperationException)   // what GetString throws on half of a surrogate pair, such as \ud83d alone
        {
            throw new RowException("invalid_text", "holds a \\u escape that is half of a character", field);
        }
    }

    public static IReadOnlyList<JsonElement> List(JsonElement value, string field)
    {
        if (value.ValueKind == JsonValueKind.String && Text(value, field).TrimStart().StartsWith('['))
        {
            value = ParseCell(Text(value, field), field);
        }

        return value.ValueKind == JsonValueKind.Array
            ? [.. value.EnumerateArray()]
            : throw new RowException("wrong_type", $"must be a list, found {Describe(value)}", field);
    }

    public static int Integer(JsonElement value, string field, int? index = null) =>
        value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var number)
            ? number
            : throw new RowException(
                "wrong_type", $"must be a whole number of at most 32 bits, found {Describe(value)}", index is null ? field : $"{field}[{index}]");

    /// <summary>The value in words, short enough for a message.</summary>
    public static string Describe(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "a list",
        JsonValueKind.String => "a string",
        JsonValueKind.Null => "null",
        _ => value.GetRawText() is { Length: <= 40 } text ? text : value.GetRawText()[..40] + "…",
    };

    public static JsonElement ParseCell(string json, string field)
    {
        try
        {
            return JsonElement.Parse(json);
        }
        catch (JsonException malformed)
        {
            throw new RowException("malformed_json", $"is not valid JSON: {malformed.Message}", field);
        }
    }
}
