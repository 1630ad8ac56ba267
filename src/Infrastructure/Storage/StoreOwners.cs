using System.Globalization;
using System.Text.RegularExpressions;
using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;

namespace TrainingService.Infrastructure.Storage;

/// <summary>To which row an object belongs, told from its key. A key of no known form belongs to somebody else and is never touched.</summary>
internal static partial class StoreOwners
{
    /// <summary>Below these the service writes.</summary>
    public static readonly IReadOnlyList<string> Prefixes = ["projects/", "health/"];

    private enum Kind
    {
        Unknown,
        Probe,
        File,
        UploadPart,
        Model,
        Attempt,
    }

    public static bool IsFile(string key) => Read(key).Kind == Kind.File;

    /// <summary>Those of some objects that no row refers to and no running attempt may still be writing.</summary>
    public static async Task<IReadOnlyList<StoredObject>> OrphansAsync(
        AppDbContext db, IReadOnlyList<StoredObject> objects, CancellationToken cancellationToken)
    {
        var read = objects.Select(stored => (Stored: stored, Owner: Read(stored.Key))).ToList();
        List<Guid> IdsOf(Kind kind) => [.. read.Where(item => item.Owner.Kind == kind).Select(item => item.Owner.Id).Distinct()];
        List<string> KeysOf(Kind kind) => [.. read.Where(item => item.Owner.Kind == kind).Select(item => item.Stored.Key)];

        // A file's row may refer to an object of any form, such as a job's results.
        var keys = objects.Select(stored => stored.Key).ToList();
        var files = (await db.Files.Where(file => keys.Contains(file.StorageKey)).Select(file => file.StorageKey).ToListAsync(cancellationToken)).ToHashSet();
        var partKeys = KeysOf(Kind.UploadPart);
        var parts = (await db.UploadParts
            .Where(part => partKeys.Contains(part.StorageKey)
                && db.Uploads.Any(upload => upload.Id == part.UploadId && upload.Status == UploadStatus.Pending))
            .Select(part => part.StorageKey).ToListAsync(cancellationToken)).ToHashSet();
        var modelIds = IdsOf(Kind.Model);
        var models = (await db.Models.Where(model => modelIds.Contains(model.Id)).Select(model => model.Id).ToListAsync(cancellationToken)).ToHashSet();
        var jobIds = IdsOf(Kind.Attempt);
        var attemptKeys = KeysOf(Kind.Attempt);
        var jobs = await db.Jobs.Where(job => jobIds.Contains(job.Id))
            .Select(job => new { job.Id, job.Attempt, job.Status }).ToDictionaryAsync(job => job.Id, cancellationToken);
        var artifacts = (await db.Artifacts.Where(artifact => attemptKeys.Contains(artifact.StorageKey))
            .Select(artifact => artifact.StorageKey).ToListAsync(cancellationToken)).ToHashSet();
        var checkpoints = (await db.Checkpoints.Where(checkpoint => jobIds.Contains(checkpoint.JobId))
            .Select(checkpoint => new { checkpoint.JobId, checkpoint.StoragePrefix }).ToListAsync(cancellationToken)).ToLookup(row => row.JobId, row => row.StoragePrefix);

        bool IsWanted(string key, Owner owner) => files.Contains(key) || owner.Kind switch
        {
            Kind.Unknown => true,
            Kind.Probe or Kind.File => false,
            Kind.UploadPart => parts.Contains(key),
            Kind.Model => models.Contains(owner.Id),
            Kind.Attempt => artifacts.Contains(key)
                || checkpoints[owner.Id].Any(prefix => key.StartsWith(prefix, StringComparison.Ordinal))
                || (jobs.TryGetValue(owner.Id, out var job) && owner.Attempt >= job.Attempt && !IsOver(job.Status)),
        };

        return [.. read.Where(item => !IsWanted(item.Stored.Key, item.Owner)).Select(item => item.Stored)];
    }

    private static bool IsOver(JobStatus status) => status is JobStatus.Succeeded or JobStatus.Failed or JobStatus.Cancelled;

    private static Owner Read(string key)
    {
        if (key.StartsWith("health/", StringComparison.Ordinal))
        {
            return new Owner(Kind.Probe, Guid.Empty, 0);
        }

        var match = Form().Match(key);
        if (!match.Success)
        {
            return new Owner(Kind.Unknown, Guid.Empty, 0);
        }

        var rest = match.Groups["rest"].Value;
        var id = Guid.ParseExact(match.Groups["id"].Value, "N");
        var attempt = match.Groups["attempt"].Success && int.TryParse(match.Groups["attempt"].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? number
            : 0;
        var kind = match.Groups["kind"].Value switch
        {
            "files" when rest.Length == 0 => Kind.File,
            "uploads" when rest.Length > 0 => Kind.UploadPart,
            "models" when rest.Length > 0 => Kind.Model,
            "jobs" when attempt > 0 => Kind.Attempt,
            _ => Kind.Unknown,
        };
        return new Owner(kind, id, attempt);
    }

    [GeneratedRegex("^projects/[0-9a-f]{32}/(?<kind>[a-z]+)/(?<id>[0-9a-f]{32})(?<rest>(/attempt-(?<attempt>[0-9]{1,9})/.+|/.+)?)$", RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant)]
    private static partial Regex Form();

    private readonly record struct Owner(Kind Kind, Guid Id, int Attempt);
}
