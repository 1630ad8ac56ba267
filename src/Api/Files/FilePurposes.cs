using TrainingService.Api.Http;

namespace TrainingService.Api.Files;

/// <summary>What a file may be for, and how long it may live: the same for one that comes at once and one that comes in parts.</summary>
internal static class FilePurposes
{
    private const int ShortestLife = 3600;
    private const int LongestLife = 2_592_000;
    private static readonly string[] All = ["fine-tune", "assistants", "batch", "vision", "user_data", "evals"];

    /// <exception cref="RequestException">It is none of them.</exception>
    public static string Check(string? purpose) => All.Contains(purpose)
        ? purpose!
        : throw RequestException.Invalid("invalid_purpose", $"purpose must be one of: {string.Join(", ", All)}.", "purpose");

    /// <param name="anchor">From when the seconds count; null: <c>created_at</c>, the only choice.</param>
    /// <param name="anchorParam">How the request calls it.</param>
    /// <exception cref="RequestException">The life is too short, too long, or counted from elsewhere.</exception>
    public static int CheckLifetime(string? anchor, int? seconds, string anchorParam, string secondsParam)
    {
        if (anchor is not (null or "created_at"))
        {
            throw RequestException.Invalid("invalid_expiry", $"{anchorParam} must be created_at.", anchorParam);
        }

        return seconds is >= ShortestLife and <= LongestLife
            ? seconds.Value
            : throw RequestException.Invalid("invalid_expiry", $"{secondsParam} must be from {ShortestLife} to {LongestLife}.", secondsParam);
    }
}
