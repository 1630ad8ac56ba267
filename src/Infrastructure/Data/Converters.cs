using System.Text.Json;
using Microsoft.EntityFrameworkCore.Storage.ValueConversion;

namespace TrainingService.Infrastructure.Data;

/// <summary>An enum as its <c>snake_case</c> name: rows stay readable, and renumbering members changes nothing.</summary>
internal sealed class SnakeCaseEnum<T>() : ValueConverter<T, string>(value => Write(value), text => Read(text))
    where T : struct, Enum
{
    private static readonly Dictionary<T, string> Names =
        Enum.GetValues<T>().ToDictionary(value => value, value => JsonNamingPolicy.SnakeCaseLower.ConvertName(value.ToString()));

    private static readonly Dictionary<string, T> Values = Names.ToDictionary(pair => pair.Value, pair => pair.Key);

    private static string Write(T value) => Names[value];

    private static T Read(string text) => Values[text];
}

/// <summary>A time as whole microseconds since 1970, UTC: the precision of Postgres.</summary>
internal sealed class UnixMicroseconds() : ValueConverter<DateTimeOffset, long>(time => ToNumber(time), number => ToTime(number))
{
    internal static DateTimeOffset ToTime(long microseconds) =>
        DateTimeOffset.UnixEpoch.AddTicks(microseconds * TimeSpan.TicksPerMicrosecond);

    internal static long ToNumber(DateTimeOffset time) =>
        (time.UtcTicks - DateTimeOffset.UnixEpoch.Ticks) / TimeSpan.TicksPerMicrosecond;
}
