using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Http;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Jobs;

/// <summary>Finds the job of a request that was sent before, and remembers the request of a new job.</summary>
internal sealed class Idempotency
{
    private const int LongestKey = 200;

    /// <summary>Clients that retry by themselves do so within this time.</summary>
    private static readonly TimeSpan RetryWindow = TimeSpan.FromMinutes(5);

    private readonly Guid _project;
    private readonly string? _key;
    private readonly string _hash;
    private readonly bool _isRetry;

    public Idempotency(HttpContext context, Caller caller, JsonElement body)
    {
        var headers = context.Request.Headers;
        _project = caller.ProjectId;
        _key = headers["Idempotency-Key"].ToString() is { Length: > 0 } key ? key : null;
        if (_key?.Length > LongestKey)
        {
            throw RequestException.Invalid("invalid_idempotency_key", $"Idempotency-Key must be at most {LongestKey} characters long.", "Idempotency-Key");
        }

        var text = $"{context.Request.Method} {context.Request.Path}\n{body.GetRawText()}";
        _hash = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)));
        _isRetry = int.TryParse(headers["x-stainless-retry-count"], NumberStyles.None, CultureInfo.InvariantCulture, out var count) && count > 0;
    }

    /// <summary>The job that the same request has made already; null when there is none.</summary>
    /// <exception cref="RequestException">The key was used for another body.</exception>
    public async Task<TrainingJob?> FindAsync(AppDbContext db, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var records = db.IdempotencyRecords.AsNoTracking().Where(record => record.ProjectId == _project);
        IdempotencyRecord? earlier = null;
        if (_key is not null)
        {
            var key = "key:" + _key;
            earlier = await records.SingleOrDefaultAsync(record => record.Key == key, cancellationToken);
            if (earlier is not null && earlier.RequestHash != _hash)
            {
                throw new KeyReusedException(_key);
            }
        }
        else if (_isRetry)
        {
            var since = now - RetryWindow;
            earlier = await records.Where(record => record.RequestHash == _hash && record.CreatedAt >= since && record.Key.StartsWith("body:"))
                .OrderByDescending(record => record.CreatedAt).FirstOrDefaultAsync(cancellationToken);
        }

        return earlier is null ? null : await db.Jobs.AsNoTracking().SingleAsync(job => job.Id == earlier.JobId, cancellationToken);
    }

    /// <summary>What is saved with a new job. Two requests with one key cannot both save it.</summary>
    public IdempotencyRecord Remember(TrainingJob job) => new()
    {
        ProjectId = _project,
        Key = _key is null ? $"body:{job.Id:N}" : "key:" + _key,
        RequestHash = _hash,
        JobId = job.Id,
        CreatedAt = job.CreatedAt,
    };
}

/// <summary>An idempotency key came with another body than the first time.</summary>
internal sealed class KeyReusedException(string key) : Domain.DomainException(
    "idempotency_key_reused", $"Idempotency-Key '{key}' was used for another request; send a new key, or the same body.");
