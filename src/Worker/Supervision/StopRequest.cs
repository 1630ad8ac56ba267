namespace TrainingService.Worker.Supervision;

/// <summary>Why an attempt was asked to end early. A later one of this list overrules an earlier one.</summary>
internal enum StopReason
{
    None,

    /// <summary>The worker shuts down.</summary>
    Shutdown,

    /// <summary>The job's owner sets it aside.</summary>
    Paused,

    /// <summary>The job took longer than it may.</summary>
    Deadline,

    /// <summary>The job's owner wants its end.</summary>
    Cancelled,

    /// <summary>The job is another worker's now.</summary>
    LeaseLost,
}

/// <summary>The one place where an attempt learns that it shall end.</summary>
internal sealed class StopRequest : IDisposable
{
    private readonly Lock _gate = new();
    private readonly CancellationTokenSource _source = new();
    private readonly List<Action<StopReason>> _listeners = [];

    public StopReason Reason { get; private set; }

    /// <summary>Fires with the first reason.</summary>
    public CancellationToken Token => _source.Token;

    public void Set(StopReason reason)
    {
        Action<StopReason>[] listeners;
        lock (_gate)
        {
            if (reason <= Reason)
            {
                return;
            }

            Reason = reason;
            listeners = [.. _listeners];
        }

        foreach (var listener in listeners)
        {
            listener(reason);
        }

        _source.Cancel();
    }

    /// <summary>Calls back with the reason there is, and with each that overrules it.</summary>
    public void Listen(Action<StopReason> listener)
    {
        lock (_gate)
        {
            _listeners.Add(listener);
        }

        if (Reason is not StopReason.None and var reason)
        {
            listener(reason);
        }
    }

    public void Dispose() => _source.Dispose();
}
