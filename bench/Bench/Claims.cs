using System.Collections.Concurrent;
using System.Diagnostics;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Projects;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.Bench;

/// <summary>How fast workers get jobs out of a long queue on Postgres, through the job store that they use.</summary>
internal static class Claims
{
    private const int Queued = 10_000;
    private const int Projects = 10;
    private const int Counted = 300;
    private const int Workers = 8;

    private static readonly TimeSpan Lease = TimeSpan.FromMinutes(5);

    public static async Task RunAsync(CancellationToken cancellationToken)
    {
        await using var service = await Production.CreateAsync(cancellationToken);
        await FillAsync(service, cancellationToken);
        var jobs = service.Services.GetRequiredService<JobStore>();
        await ClaimAsync(jobs, workers: 1, 20, cancellationToken);   // connections, prepared statements

        var (_, alone) = await ClaimAsync(jobs, workers: 1, Counted, cancellationToken);
        var (seconds, together) = await ClaimAsync(jobs, Workers, Counted, cancellationToken);
        await using var db = await service.OpenAsync(cancellationToken);
        var sync = await db.Database.SqlQueryRaw<string>("""SELECT current_setting('fsync') AS "Value" """).SingleAsync(cancellationToken);
        var conditions = $"{Queued} queued jobs of {Projects} projects, Postgres with fsync {sync}";
        new Figure("claims", Counted / seconds, "1/s", $"{conditions}, {Workers} workers at a time").Print();
        new Figure("claim, p50", Figure.Quantile(together, 0.5) * 1000, "ms", $"{conditions}, {Workers} workers at a time").Print();
        new Figure("claim, p95", Figure.Quantile(together, 0.95) * 1000, "ms", $"{conditions}, {Workers} workers at a time").Print();
        new Figure("claim, p50", Figure.Quantile(alone, 0.5) * 1000, "ms", $"{conditions}, one worker").Print();
        new Figure("claim, p95", Figure.Quantile(alone, 0.95) * 1000, "ms", $"{conditions}, one worker").Print();
    }

    private static async Task<(double Seconds, IReadOnlyCollection<double> Latencies)> ClaimAsync(
        JobStore jobs, int workers, int count, CancellationToken cancellationToken)
    {
        var latencies = new ConcurrentBag<double>();
        var left = count;
        var clock = Stopwatch.StartNew();
        await Task.WhenAll(Enumerable.Range(0, workers).Select(async worker =>
        {
            while (Interlocked.Decrement(ref left) >= 0)
            {
                var started = Stopwatch.GetTimestamp();
                _ = await jobs.ClaimAsync($"bench-{worker}", Lease, cancellationToken)
                    ?? throw new InvalidOperationException("A claim found nothing in a full queue.");
                latencies.Add(Stopwatch.GetElapsedTime(started).TotalSeconds);
            }
        }));
        return (clock.Elapsed.TotalSeconds, latencies);
    }

    private static async Task FillAsync(Production service, CancellationToken cancellationToken)
    {
        var now = TimeProvider.System.GetUtcNow();
        var projects = Enumerable.Range(0, Projects).Select(_ => Guid.NewGuid()).ToList();
        await using (var db = await service.OpenAsync(cancellationToken))
        {
            db.Projects.AddRange(projects.Select(id => new Project { Id = id, Name = id.ToString(), CreatedAt = now }));
            await db.SaveChangesAsync(cancellationToken);
        }

        foreach (var batch in Enumerable.Range(0, Queued).Chunk(1000))
        {
            await using var db = await service.OpenAsync(cancellationToken);
            db.Jobs.AddRange(batch.Select(index => TrainingJob.Submit(
                new NewJob
                {
                    ProjectId = projects[index % Projects],
                    SpecJson = """{"model":"m","data":{"train":"t"}}""",
                    RequestJson = "{}",
                    Model = "m",
                    Priority = index % 3,
                },
                now.AddMilliseconds(index))));
            await db.SaveChangesAsync(cancellationToken);
        }

        // As autovacuum would have, had the jobs come over an hour.
        await using var planned = await service.OpenAsync(cancellationToken);
        await planned.Database.ExecuteSqlRawAsync("ANALYZE", cancellationToken);
    }
}
