namespace TrainingService.Infrastructure.Storage;

/// <summary>Cancels an exchange in which nothing has moved for a while. The time starts anew with every <see cref="Touch"/>.</summary>
internal sealed class IdleWatch : IDisposable
{
    private readonly CancellationTokenSource _source;
    private readonly TimeSpan _limit;

    public IdleWatch(TimeSpan limit, CancellationToken cancellationToken)
    {
        _limit = limit;
        _source = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        Touch();
    }

    public CancellationToken Token => _source.Token;

    public void Touch() => _source.CancelAfter(_limit);

    public void Dispose() => _source.Dispose();
}
