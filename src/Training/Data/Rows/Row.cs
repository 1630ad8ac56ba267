using System.Text.Json;

namespace TrainingService.Training.Data.Rows;

/// <summary>What a container holds at one place: a row, or why there is none.</summary>
/// <param name="Number">One-based; null when the file as a whole is at fault.</param>
/// <param name="Columns">Null when there is a fault, and before the row was parsed.</param>
/// <param name="Bytes">What the row took in the file; 0 when there is a fault.</param>
internal sealed record Row(int? Number, IReadOnlyDictionary<string, JsonElement>? Columns, RowFault? Fault, int Bytes = 0)
{
    private byte[]? _json;
    /// <summary>Columns of a row, and members of an object at its top. A layout reads a handful.</summary>
    public const int MostColumns = 10_000;

    /// <summary>Characters of a column's name.</summary>
    public const int LongestName = 1_000;

    public static Row Of(int number, IReadOnlyDictionary<string, JsonElement> columns, int bytes) => new(number, columns, null, bytes);

    /// <summary>A row whose place in the file is known, and that <see cref="Parsed"/> reads: any thread may do so.</summary>
    public static Row Unparsed(int number, ReadOnlySpan<byte> json) => new(number, null, null, json.Length) { _json = json.ToArray() };

    public Row Parsed()
    {
        if (_json is null)
        {
            return this;
        }

        try
        {
            return Of(Number!.Value, JsonRow.Parse(_json), Bytes);
        }
        catch (RowException broken)
        {
            return Broken(Number, broken.Fault);
        }
    }

    public static Row Broken(int? number, RowFault fault) => new(number, null, fault);
}

/// <summary>A broken rule, before it is known to which split it belongs.</summary>
internal sealed record RowFault(string Code, string Message, string? Field = null, int? Column = null)
{
    private const int LongestText = 1_000;

    /// <remarks>The report keeps a hundred of these, and names and values in them are the file's.</remarks>
    public RowError In(string split, int? row) => new(split, row, Column, Field is null ? null : Shorten(Field), Code, Shorten(Message));

    private static string Shorten(string text) => text.Length <= LongestText ? text : text[..LongestText] + "…";
}

/// <summary>Carries a fault from the depth of a row to the loop over rows, which reports it and goes on.</summary>
internal sealed class RowException(RowFault fault) : Exception(fault.Message)
{
    public RowException(string code, string message, string? field = null)
        : this(new RowFault(code, message, field))
    {
    }

    public RowFault Fault { get; } = fault;
}
