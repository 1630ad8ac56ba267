using System.Text.Json;
using TrainingService.Api.Http;
using TrainingService.Domain.Jobs;

namespace TrainingService.Api.Jobs;

/// <summary>Which jobs a list shows.</summary>
internal sealed record JobFilter
{
    public JobStatus? Status { get; init; }

    public string? Model { get; init; }

    public DateTimeOffset? CreatedAfter { get; init; }

    public DateTimeOffset? CreatedBefore { get; init; }

    /// <summary>Cursor: the last job of the page before.</summary>
    public string? After { get; init; }

    /// <summary>Pairs that a job's own metadata must have.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; init; } = new Dictionary<string, string>();

    /// <summary>Reads <c>metadata[key]=value</c> parameters.</summary>
    public static IReadOnlyDictionary<string, string> MetadataOf(IQueryCollection query) => query
        .Where(pair => pair.Key.StartsWith("metadata[", StringComparison.Ordinal) && pair.Key.EndsWith(']'))
        .ToDictionary(pair => pair.Key["metadata[".Length..^1], pair => pair.Value.ToString());

    public static JobStatus? StatusOf(string? text)
    {
        if (text is null)
        {
            return null;
        }

        var known = Enum.GetValues<JobStatus>();
        var index = Array.FindIndex(known, status => Wire.Name(status) == text);
        return index >= 0
            ? known[index]
            : throw RequestException.Invalid(
                "invalid_status", $"status must be one of: {string.Join(", ", known.Select(Wire.Name))}.", "status");
    }

    public IQueryable<TrainingJob> Apply(IQueryable<TrainingJob> jobs)
    {
        if (Status is { } status)
        {
            jobs = jobs.Where(job => job.Status == status);
        }

        if (Model is { } model)
        {
            jobs = jobs.Where(job => job.Model == model);
        }

        if (CreatedAfter is { } from)
        {
            jobs = jobs.Where(job => job.CreatedAt >= from);
        }

        if (CreatedBefore is { } to)
        {
            jobs = jobs.Where(job => job.CreatedAt < to);
        }

        return jobs;
    }

    public bool MatchesMetadata(string? json)
    {
        var pairs = json is null ? null : JsonSerializer.Deserialize<Dictionary<string, string>>(json);
        return pairs is not null && Metadata.All(pair => pairs.TryGetValue(pair.Key, out var value) && value == pair.Value);
    }
}
