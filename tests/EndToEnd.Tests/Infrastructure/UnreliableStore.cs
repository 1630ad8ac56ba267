using TrainingService.Domain.Artifacts;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>A folder store that can be away, or take for ever.</summary>
internal sealed class UnreliableStore(string folder) : IArtifactStore
{
    private readonly FolderArtifactStore _inner = new(Path.Combine(folder, "artifacts"));
    private readonly TaskCompletionSource _hangs = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Whether every read and write fails.</summary>
    public bool Away { get; set; }

    /// <summary>Keys whose writes do not end by themselves.</summary>
    public Func<string, bool> Hanging { get; set; } = _ => false;

    /// <summary>Ends when a write hangs.</summary>
    public Task Hangs => _hangs.Task;

    /// <summary>Called when a read begins.</summary>
    public Func<string, int> Reading { get; set; } = _ => 0;

    public async Task<StoredObject> PutAsync(string key, Stream content, string contentType, CancellationToken cancellationToken)
    {
        ThrowIfAway();
        if (Hanging(key))
        {
            _hangs.TrySetResult();
            await Task.Delay(Timeout.Infinite, cancellationToken);
        }

        return await _inner.PutAsync(key, content, contentType, cancellationToken);
    }

    public Task<Stream?> OpenReadAsync(string key, (long First, long Last)? range, CancellationToken cancellationToken)
    {
        ThrowIfAway();
        Reading(key);
        return _inner.OpenReadAsync(key, range, cancellationToken);
    }

    public IAsyncEnumerable<StoredObject> ListAsync(string prefix, CancellationToken cancellationToken)
    {
        ThrowIfAway();
        return _inner.ListAsync(prefix, cancellationToken);
    }

    public Task DeleteAsync(string key, CancellationToken cancellationToken)
    {
        ThrowIfAway();
        return _inner.DeleteAsync(key, cancellationToken);
    }

    public Task<int> RemoveUnfinishedAsync(DateTimeOffset before, CancellationToken cancellationToken)
    {
        ThrowIfAway();
        return _inner.RemoveUnfinishedAsync(before, cancellationToken);
    }

    public Task<Uri?> PresignAsync(string key, string downloadName, TimeSpan lifetime, CancellationToken cancellationToken) =>
        _inner.PresignAsync(key, downloadName, lifetime, cancellationToken);

    private void ThrowIfAway()
    {
        if (Away)
        {
            throw new ArtifactStoreException("The store is away.");
        }
    }
}
