using System.Text.Json;

namespace TrainingService.Training.Data.Rows;

/// <summary>What a container holds at one place: a row, or why there is none.</summary>
/// <param name="Number">One-based; null when the file as a whole is at fault.</param>
/// <param name="Columns">Null exactly when there is a fault.</param>
internal sealed record Row(int? Number, IReadOnlyDictionary<string, JsonElement>? Columns, RowFault? Fault)
{
    public static Row Of(int number, IReadOnlyDictionary<string, JsonElement> columns) => new(number, columns, null);

    public static Row Broken(int? number, RowFault fault) => new(number, null, fault);
}

/// <summary>A broken rule, before it is known to which split it belongs.</summary>
internal sealed record RowFault(string Code, string Message, string? Field = null, int? Column = null)
{
    public RowError In(string split, int? row) => new(split, row, Column, Field, Code, Message);
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
