using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace TrainingService.Training;

/// <summary>Reads one value that is neither an object nor a list: text, number, truth value, enum, or a type with a form of its own.</summary>
internal static class SpecScalar
{
    /// <summary>Reads a value and reports what is wrong with it.</summary>
    /// <returns>False when something was reported.</returns>
    public static bool TryRead(JsonElement value, JsonTypeInfo type, SpecMember member, Action<SpecError> report, out object? result)
    {
        var clr = Nullable.GetUnderlyingType(type.Type) ?? type.Type;
        var (read, code, predicate) = clr switch
        {
            _ when clr == typeof(string) => ReadText(value, member),
            _ when clr == typeof(bool) => ReadTruth(value),
            _ when clr == typeof(int) => ReadInteger(value, member),
            _ when clr == typeof(double) => ReadNumber(value, member),
            _ when clr.IsEnum => ReadEnum(value, clr, type.Options),
            _ => ReadOwnForm(value, type),
        };
        if (predicate is not null)
        {
            report(new SpecError(member.Path, $"{SpecPath.Spoken(member.Path)} {predicate}", code!));
        }

        result = read;
        return predicate is null;
    }

    /// <summary>The value for a message, not too long.</summary>
    public static string Seen(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "a list",
        _ => SpecPath.Shorten(value.GetRawText()),
    };

    private static Outcome ReadText(JsonElement value, SpecMember member)
    {
        if (value.ValueKind != JsonValueKind.String)
        {
            return Wrong(value, "must be a text");
        }

        var text = value.GetString()!;
        if (string.IsNullOrWhiteSpace(text))
        {
            return new(null, SpecErrorCodes.InvalidValue, $"is empty; {(member.IsNullable ? "give a text or null." : "give a text.")}");
        }

        if (member.Rule<AllowedValuesAttribute>() is { } allowed && !allowed.Values.Contains(text))
        {
            return Unknown(value, text, allowed.Values.Cast<string>());
        }

        return new(text, null, null);
    }

    private static Outcome ReadTruth(JsonElement value) => value.ValueKind is JsonValueKind.True or JsonValueKind.False
        ? new(value.GetBoolean(), null, null)
        : Wrong(value, "must be true or false");

    private static Outcome ReadInteger(JsonElement value, SpecMember member)
    {
        if (value.ValueKind != JsonValueKind.Number)
        {
            return Wrong(value, "must be a whole number");
        }

        var number = value.GetDouble();   // exact for every int; too large a number becomes infinite
        if (double.IsFinite(number) && number != Math.Floor(number))
        {
            return new(null, SpecErrorCodes.NotAnInteger, $"is {Seen(value)}; it must be a whole number{Bounds(member)}.");
        }

        return number is >= int.MinValue and <= int.MaxValue && IsWithin((int)number, member)
            ? new((int)number, null, null)
            : OutOfRange(value, member);
    }

    private static Outcome ReadNumber(JsonElement value, SpecMember member)
    {
        if (value.ValueKind != JsonValueKind.Number)
        {
            return Wrong(value, "must be a number");
        }

        var number = value.GetDouble();
        return double.IsFinite(number) && IsWithin(number, member) ? new(number, null, null) : OutOfRange(value, member);
    }

    private static Outcome ReadEnum(JsonElement value, Type type, JsonSerializerOptions options)
    {
        var names = Enum.GetNames(type).ToDictionary(options.PropertyNamingPolicy!.ConvertName);
        if (value.ValueKind != JsonValueKind.String)
        {
            return Wrong(value, $"must be one of {string.Join(", ", names.Keys)}");
        }

        var text = value.GetString()!;
        return names.TryGetValue(text, out var name) ? new(Enum.Parse(type, name), null, null) : Unknown(value, text, names.Keys);
    }

    private static Outcome ReadOwnForm(JsonElement value, JsonTypeInfo type)
    {
        try
        {
            return new(value.Deserialize(type), null, null);
        }
        catch (JsonException error)
        {
            return new(null, SpecErrorCodes.InvalidValue, $"is {Seen(value)}; it {error.Message}.");
        }
    }

    private static Outcome Wrong(JsonElement value, string rule) => new(null, SpecErrorCodes.WrongKind, $"is {Seen(value)}; it {rule}.");

    private static Outcome OutOfRange(JsonElement value, SpecMember member) =>
        new(null, SpecErrorCodes.OutOfRange, $"is {Seen(value)}; it must be a number{Bounds(member)}.");

    private static Outcome Unknown(JsonElement value, string text, IEnumerable<string> known)
    {
        var names = known.ToList();
        var near = NearestName.Of(text, names) is { } name ? $"did you mean {name}? Or " : "";
        return new(null, SpecErrorCodes.UnknownValue, $"is {Seen(value)}; {near}choose one of {string.Join(", ", names)}.");
    }

    private static bool IsWithin(double number, SpecMember member)
    {
        if (member.Rule<RangeAttribute>() is not { } range)
        {
            return true;
        }

        var (minimum, maximum) = (ToNumber(range.Minimum), ToNumber(range.Maximum));
        return number >= minimum && (range.MaximumIsExclusive ? number < maximum : number <= maximum);
    }

    private static string Bounds(SpecMember member) => member.Rule<RangeAttribute>() is { } range
        ? range.MaximumIsExclusive
            ? string.Create(CultureInfo.InvariantCulture, $" from {range.Minimum} up to, not including, {range.Maximum}")
            : string.Create(CultureInfo.InvariantCulture, $" from {range.Minimum} to {range.Maximum}")
        : " that a computer can hold";

    private static double ToNumber(object bound) => Convert.ToDouble(bound, CultureInfo.InvariantCulture);

    /// <summary>What was read; or the code of the error and the sentence that follows the name of the member.</summary>
    private readonly record struct Outcome(object? Value, string? Code, string? Predicate);
}
