namespace TrainingService.Worker.Supervision;

/// <summary>Why an attempt was asked to end early.</summary>
internal enum StopReason
{
    None,

    /// <summary>The job's owner wants its end.</summary>
    Cancelled,

    /// <summary>The worker shuts down.</summary>
    Shutdown,

    /// <summary>The attempt took longer than it may.</summary>
    Deadline,

    /// <summary>The job is another worker's now.</summary>
    LeaseLost,
}

/// <summary>The one place where an attempt learns that it shall end. The first reason stands, but a lost lease overrules all.</summary>
internal sealed class StopRequest : IDisposable
{
    private readonly Lock _gate = new();
    private readonly CancellationTokenSource _source = new();

    public StopReason Reason { get; private set; }

    /// <summary>Fires with the first reason.</summary>
    public CancellationToken Token => _source.Token;

    public void Set(StopReason reason)
    {
        lock (_gate)
        {
            if (Reason == StopReason.None || reason == StopReason.LeaseLost)
            {
                Reason = reason;
            }
        }

        _source.Cancel();
    }

    public void Dispose() => _source.Dispose();
}
