using System.Collections.Concurrent;
using TrainingService.Domain.Jobs;
using TrainingService.EndToEnd.Tests.Infrastructure;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.EndToEnd.Tests.StateMachine;

/// <summary>
/// Eight actors at once on few jobs: workers that crash, come back late and write with leases of long ago, owners, a reconciler, somebody
/// who lets leases run out, and a reader who checks one snapshot after the other.
/// </summary>
internal sealed class Storm(TestService service, int seed, int steps)
{
    private static readonly StepKind[] Working =
    [
        StepKind.Renew, StepKind.Report, StepKind.Report, StepKind.Report, StepKind.Checkpoint, StepKind.Renew, StepKind.Report, StepKind.Succeed,
        StepKind.Fail, StepKind.ConfirmCancelled, StepKind.ConfirmPaused, StepKind.GiveBack, StepKind.GiveBack, StepKind.Retry, StepKind.RetryLater,
    ];

    private readonly World _world = new(service);
    private readonly ConcurrentDictionary<Guid, long> _newest = new();
    private readonly ConcurrentDictionary<(Guid Job, long Token), bool> _gone = new();
    private readonly Lock _gate = new();
    private readonly List<Guid> _jobs = [];
    private readonly List<JobLease> _leases = [];
    private int _order;

    /// <summary>Claims that were answered, by job and token.</summary>
    public ConcurrentBag<(Guid Job, long Token)> Claims { get; } = [];

    /// <summary>Events of reports that were accepted; whatever else a report brought must not be there.</summary>
    public ConcurrentBag<string> Reported { get; } = [];

    /// <summary>Writes that were refused because the lease was lost.</summary>
    public int Refused => _refused;

    private int _refused;

    public IReadOnlyList<Guid> Jobs => _jobs;

    public async Task RunAsync()
    {
        for (var i = 0; i < 6; i++)
        {
            await SubmitAsync(new Random(seed + i));
        }

        var actors = new Func<Random, Task>[] { WorkAsync, WorkAsync, WorkAsync, WorkAsync, OwnAsync, OwnAsync, DisturbAsync, ReadAsync };
        await Task.WhenAll(actors.Select((act, index) => Task.Run(async () =>
        {
            var random = new Random((seed * 31) + index);
            for (var step = 0; step < steps; step++)
            {
                await act(random);
            }
        })));
    }

    /// <summary>Lets every job come to its end, as time alone would: back-offs pass, leases run out, workers work.</summary>
    public async Task DrainAsync()
    {
        for (var round = 0; round < 20; round++)
        {
            var open = new List<TrainingJob>();
            foreach (var id in _jobs)
            {
                var job = await service.ReadAsync(id);
                if (!TrainingJob.IsFinal(job.Status))
                {
                    open.Add(job);
                }
            }

            if (open.Count == 0)
            {
                return;
            }

            foreach (var job in open)
            {
                await _world.ExpireAsync(job.Id);
                await _world.MakeDueAsync(job.Id);
                if (job.Status == JobStatus.Paused)
                {
                    await _world.OwnAsync(StepKind.Resume, job.Id);
                }
            }

            await _world.RecoverAsync();
            while (await _world.ClaimAsync("last") is { } lease)
            {
                Claims.Add((lease.JobId, lease.Token));
                await _world.WorkAsync(StepKind.Succeed, lease, []);
            }
        }

        Assert.Fail("Some jobs never ended.");
    }

    private async Task SubmitAsync(Random random)
    {
        var id = await _world.SubmitAsync(random.Next(3), random.Next(2), Interlocked.Increment(ref _order));
        lock (_gate)
        {
            _jobs.Add(id);
        }
    }

    private async Task WorkAsync(Random random)
    {
        if (random.Next(4) == 0 && await _world.ClaimAsync($"worker-{random.Next()}") is { } claimed)
        {
            Assert.True(
                _newest.AddOrUpdate(claimed.JobId, claimed.Token, (_, known) => Math.Max(known, claimed.Token)) == claimed.Token,
                $"Token {claimed.Token} of {claimed.JobId} was handed out after a newer one had been.");
            Claims.Add((claimed.JobId, claimed.Token));
            lock (_gate)
            {
                _leases.Add(claimed);
            }

            return;
        }

        // Mostly one of the latest leases, sometimes one of long ago. Nobody owns one: a worker that forgets its lease has crashed.
        JobLease? lease;
        lock (_gate)
        {
            lease = _leases.Count == 0 ? null : _leases[random.Next(5) == 0 ? random.Next(_leases.Count) : _leases.Count - 1 - random.Next(Math.Min(6, _leases.Count))];
        }

        if (lease is not null)
        {
            await WriteAsync(lease, Working[random.Next(Working.Length)], random.Next(3));
        }
    }

    private async Task WriteAsync(JobLease lease, StepKind kind, int events)
    {
        var isLost = _newest[lease.JobId] > lease.Token || _gone.ContainsKey((lease.JobId, lease.Token));
        string[] messages = [.. Enumerable.Range(0, events).Select(_ => Guid.NewGuid().ToString())];
        try
        {
            await _world.WorkAsync(kind, lease, messages);
        }
        catch (LeaseLostException)
        {
            Interlocked.Increment(ref _refused);
            return;
        }
        catch (InvalidTransitionException) when (kind == StepKind.ConfirmCancelled)
        {
            return;   // nobody had asked for that
        }

        Assert.False(isLost, $"{kind} was accepted from token {lease.Token} of {lease.JobId}, which was lost before.");
        if (kind == StepKind.Report)
        {
            Array.ForEach(messages, Reported.Add);
        }
        else if (kind is not (StepKind.Renew or StepKind.Checkpoint))
        {
            Assert.True(_gone.TryAdd((lease.JobId, lease.Token), true), $"Token {lease.Token} of {lease.JobId} gave its job away twice.");
        }
    }

    private async Task OwnAsync(Random random)
    {
        if (random.Next(8) == 0)
        {
            await SubmitAsync(random);
            return;
        }

        var kind = random.Next(10) switch
        {
            0 => StepKind.Cancel,
            < 5 => StepKind.Pause,
            _ => StepKind.Resume,
        };
        try
        {
            await _world.OwnAsync(kind, AnyJob(random));
        }
        catch (InvalidTransitionException)
        {
            // The job was elsewhere already: an answer, and nothing was changed.
        }
    }

    private async Task DisturbAsync(Random random)
    {
        switch (random.Next(4))
        {
            case 0:
                await _world.RecoverAsync();
                break;
            case 1:
                await _world.MakeDueAsync(AnyJob(random));
                break;
            default:
                await _world.ExpireAsync(AnyJob(random));
                break;
        }
    }

    private Task ReadAsync(Random random) => Invariants.CheckAsync(service, AnyJob(random));

    private Guid AnyJob(Random random)
    {
        lock (_gate)
        {
            return _jobs[_jobs.Count - 1 - random.Next(Math.Min(10, _jobs.Count))];
        }
    }
}
