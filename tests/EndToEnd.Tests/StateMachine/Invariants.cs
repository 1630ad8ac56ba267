using System.Data;
using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Jobs;
using TrainingService.EndToEnd.Tests.Infrastructure;
using TrainingService.Infrastructure;

namespace TrainingService.EndToEnd.Tests.StateMachine;

/// <summary>What is true of every job at every moment.</summary>
internal static class Invariants
{
    /// <summary>The table of the life of a job, written down a second time.</summary>
    private static readonly HashSet<(JobStatus From, JobStatus To)> Legal =
    [
        (JobStatus.Queued, JobStatus.Running), (JobStatus.Queued, JobStatus.Paused), (JobStatus.Queued, JobStatus.Cancelled),
        (JobStatus.Queued, JobStatus.Failed), (JobStatus.Running, JobStatus.Succeeded), (JobStatus.Running, JobStatus.Failed),
        (JobStatus.Running, JobStatus.Cancelling), (JobStatus.Running, JobStatus.Paused), (JobStatus.Running, JobStatus.Queued),
        (JobStatus.Paused, JobStatus.Queued), (JobStatus.Paused, JobStatus.Cancelled), (JobStatus.Cancelling, JobStatus.Cancelled),
        (JobStatus.Cancelling, JobStatus.Succeeded), (JobStatus.Cancelling, JobStatus.Failed),
    ];

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public static async Task CheckAllAsync(TestService service)
    {
        var states = Enum.GetValues<JobStatus>();
        Assert.Equal(
            Legal.Order(), states.SelectMany(from => states.Where(to => TrainingJob.CanMove(from, to)).Select(to => (from, to))).Order());
        await using var db = await service.OpenAsync();
        foreach (var id in await db.Jobs.Select(j => j.Id).ToListAsync(Cancel))
        {
            await CheckAsync(service, id);
        }
    }

    /// <summary>Reads one job in one snapshot, while others write.</summary>
    public static async Task CheckAsync(TestService service, Guid id)
    {
        await using var db = await service.OpenAsync();
        await using var snapshot = await db.Database.BeginTransactionAsync(
            db.Database.ProviderName!.Contains("Npgsql", StringComparison.Ordinal) ? IsolationLevel.RepeatableRead : IsolationLevel.Serializable, Cancel);
        var job = await db.Jobs.AsNoTracking().SingleOrDefaultAsync(j => j.Id == id, Cancel);
        if (job is not null)
        {
            Check(job, await EventsAsync(db, id), await AttemptsAsync(db, id));
        }
    }

    private static Task<List<long>> EventsAsync(AppDbContext db, Guid id) =>
        db.Events.Where(e => e.JobId == id).OrderBy(e => e.Sequence).Select(e => e.Sequence).ToListAsync(Cancel);

    private static Task<List<int>> AttemptsAsync(AppDbContext db, Guid id) =>
        db.Metrics.Where(m => m.JobId == id).Select(m => m.Attempt).Concat(db.Checkpoints.Where(c => c.JobId == id).Select(c => c.Attempt)).ToListAsync(Cancel);

    private static void Check(TrainingJob job, List<long> events, List<int> attempts)
    {
        var moves = job.History.OrderBy(move => move.Ordinal).ToList();
        var story = $"{job.Id} is {job.Status} after {string.Join(' ', moves.Select(move => move.Status))}";
        Assert.True(moves.Select(move => move.Ordinal).SequenceEqual(Enumerable.Range(1, moves.Count)), $"The history has a gap or a double: {story}.");
        Assert.True(moves[0].Status == JobStatus.Queued && moves[^1].Status == job.Status, $"The history and the row differ: {story}.");
        Assert.All(moves.Zip(moves.Skip(1)), pair => Assert.True(Legal.Contains((pair.First.Status, pair.Second.Status)), $"An illegal move: {story}."));
        Assert.True(
            moves.Count(move => move.Status == JobStatus.Running) == job.Attempt && job.LeaseToken == job.Attempt,
            $"Attempt {job.Attempt} and token {job.LeaseToken} are not the number of claims: {story}.");
        Assert.True(events.SequenceEqual(Enumerable.Range(1, events.Count).Select(n => (long)n)), $"The events have a gap: {story}.");
        Assert.True(events.Count == job.LastEventSequence, $"{events.Count} events, the row says {job.LastEventSequence}: {story}.");
        Assert.True((job.FinishedAt is not null) == TrainingJob.IsFinal(job.Status), $"FinishedAt is {job.FinishedAt}: {story}.");
        Assert.True((job.FineTunedModel is not null) == (job.Status == JobStatus.Succeeded), $"The result is {job.FineTunedModel}: {story}.");
        Assert.True((job.Failure is not null) == (job.Status == JobStatus.Failed), $"The failure is {job.Failure}: {story}.");
        var isLive = job.Status is JobStatus.Running or JobStatus.Cancelling;
        Assert.True((job.LeaseOwner is not null, job.LeaseExpiresAt is not null) == (isLive, isLive), $"The lease is {job.LeaseOwner}, {job.LeaseExpiresAt}: {story}.");
        Assert.True(job.PauseRequestedAt is null || job.Status == JobStatus.Running, $"A pause is asked for: {story}.");
        Assert.True(attempts.TrueForAll(attempt => attempt >= 1 && attempt <= job.Attempt), $"Figures or checkpoints of an attempt that was not: {story}.");
    }
}
