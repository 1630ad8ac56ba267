using System.Text.Json;
using TrainingService.Api.Http;

namespace TrainingService.Api.Jobs;

/// <summary>A job that is asked for, in either dialect: the spec to be read, and what belongs to the job alone.</summary>
/// <param name="Spec">The native spec. Ids in it are the client's.</param>
/// <param name="Request">The body as it came.</param>
/// <param name="Errors">What the dialect has found wrong already.</param>
/// <param name="ToClientPath">Where the client wrote what stands at a path of the spec.</param>
internal sealed record JobRequest(
    JsonElement Spec, JsonElement Request, JobLabels Labels, IReadOnlyList<ErrorDetail> Errors, Func<string, string> ToClientPath);

/// <summary>What a client may attach to a job.</summary>
internal sealed record JobLabels(string? Suffix, string? MetadataJson, int Priority, int? MaxRunSeconds)
{
    private const int LongestSuffix = 64;
    private const int MostPairs = 16;
    private const int LongestKey = 64;
    private const int LongestValue = 512;
    private const int HighestPriority = 100;
    private const int LongestRunSeconds = 31_536_000;   // a year

    /// <summary>The members of a body that are no part of the spec.</summary>
    public static readonly IReadOnlySet<string> Names = new HashSet<string> { "suffix", "metadata", "priority", "max_run_seconds" };

    public static JobLabels Read(JsonElement body, List<ErrorDetail> errors) => new(
        ReadSuffix(body, errors), ReadMetadata(body, errors), ReadPriority(body, errors), ReadMaxRunSeconds(body, errors));

    private static string? ReadSuffix(JsonElement body, List<ErrorDetail> errors)
    {
        if (!TryGet(body, "suffix", out var value))
        {
            return null;
        }

        var text = value.ValueKind == JsonValueKind.String ? value.GetString()! : "";
        if (text.Length is 0 or > LongestSuffix || !text.All(letter => char.IsAsciiLetterOrDigit(letter) || letter is '-' or '_' or '.'))
        {
            errors.Add(ErrorDetail.Invalid(
                "invalid_value", $"suffix must be 1 to {LongestSuffix} letters, digits, '-', '_' or '.', such as \"my-model\".", "suffix"));
        }

        return text;
    }

    private static string? ReadMetadata(JsonElement body, List<ErrorDetail> errors)
    {
        if (!TryGet(body, "metadata", out var value))
        {
            return null;
        }

        if (value.ValueKind != JsonValueKind.Object)
        {
            errors.Add(ErrorDetail.Invalid("wrong_kind", "metadata must be an object of strings.", "metadata"));
            return null;
        }

        if (value.GetPropertyCount() > MostPairs)
        {
            errors.Add(ErrorDetail.Invalid("too_large", $"metadata has {value.GetPropertyCount()} pairs; at most {MostPairs} are kept.", "metadata"));
        }

        foreach (var pair in value.EnumerateObject())
        {
            if (pair.Value.ValueKind != JsonValueKind.String || pair.Name.Length > LongestKey || pair.Value.GetString()!.Length > LongestValue)
            {
                errors.Add(ErrorDetail.Invalid(
                    "invalid_value", $"metadata takes keys of up to {LongestKey} and strings of up to {LongestValue} characters.", $"metadata.{pair.Name}"));
            }
        }

        return value.GetRawText();
    }

    private static int ReadPriority(JsonElement body, List<ErrorDetail> errors)
    {
        if (!TryGet(body, "priority", out var value))
        {
            return 0;
        }

        if (value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var number) && Math.Abs(number) <= HighestPriority)
        {
            return number;
        }

        errors.Add(ErrorDetail.Invalid(
            "out_of_range", $"priority must be a whole number from -{HighestPriority} to {HighestPriority}; higher runs first.", "priority"));
        return 0;
    }

    private static int? ReadMaxRunSeconds(JsonElement body, List<ErrorDetail> errors)
    {
        if (!TryGet(body, "max_run_seconds", out var value))
        {
            return null;
        }

        if (value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var number) && number is >= 1 and <= LongestRunSeconds)
        {
            return number;
        }

        errors.Add(ErrorDetail.Invalid(
            "out_of_range", $"max_run_seconds must be a whole number of seconds from 1 to {LongestRunSeconds}.", "max_run_seconds"));
        return null;
    }

    private static bool TryGet(JsonElement body, string name, out JsonElement value)
    {
        value = default;
        return body.ValueKind == JsonValueKind.Object && body.TryGetProperty(name, out value) && value.ValueKind != JsonValueKind.Null;
    }
}
