using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace TrainingService.Api.Http;

/// <summary>How our contracts look on the wire.</summary>
internal static class Wire
{
    /// <summary>snake_case names, enums as words, no member twice.</summary>
    public static void Configure(JsonSerializerOptions options)
    {
        options.PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower;
        options.DictionaryKeyPolicy = null;
        options.PropertyNameCaseInsensitive = false;
        options.NumberHandling = JsonNumberHandling.Strict;
        options.AllowDuplicateProperties = false;
        options.RespectNullableAnnotations = true;
        options.Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping;
        options.Converters.Add(new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower, allowIntegerValues: false));
    }

    /// <summary>Wire name of an enum member.</summary>
    public static string Name<T>(T value)
        where T : struct, Enum => JsonNamingPolicy.SnakeCaseLower.ConvertName(value.ToString());

    /// <summary>Seconds since 1970. The clients accept whole numbers only.</summary>
    public static long UnixSeconds(DateTimeOffset time) => time.ToUnixTimeSeconds();

    public static long? UnixSeconds(DateTimeOffset? time) => time?.ToUnixTimeSeconds();

    /// <summary>The clients read 32 bits.</summary>
    public static int Int32(long value) => (int)Math.Clamp(value, int.MinValue, int.MaxValue);

    /// <summary>Stored JSON, passed on as it is.</summary>
    public static JsonElement? Parse(string? json) =>
        json is null ? null : JsonSerializer.Deserialize<JsonElement>(json);
}
