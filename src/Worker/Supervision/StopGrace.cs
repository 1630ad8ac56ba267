namespace TrainingService.Worker.Supervision;

/// <summary>A token that fires some time after an attempt was asked to end: how long depends on why.</summary>
internal sealed class StopGrace : IDisposable
{
    private readonly Lock _gate = new();
    private readonly CancellationTokenSource _source;
    private readonly TimeProvider _clock;
    private long? _asked;
    private bool _disposed;

    /// <param name="graceOf">Time from the first request on; null: the work may go on to its end.</param>
    public StopGrace(StopRequest stop, Func<StopReason, TimeSpan?> graceOf, TimeProvider clock)
    {
        _clock = clock;
        _source = new CancellationTokenSource(Timeout.InfiniteTimeSpan, clock);
        stop.Listen(reason => End(graceOf(reason)));
    }

    public CancellationToken Token => _source.Token;

    public void Dispose()
    {
        lock (_gate)
        {
            _disposed = true;
            _source.Dispose();
        }
    }

    private void End(TimeSpan? grace)
    {
        lock (_gate)
        {
            if (_disposed)
            {
                return;
            }

            _asked ??= _clock.GetTimestamp();
            if (grace is { } time)
            {
                var left = time - _clock.GetElapsedTime(_asked.Value);
                _source.CancelAfter(left > TimeSpan.Zero ? left : TimeSpan.Zero);
            }
        }
    }
}
