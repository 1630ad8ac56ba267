namespace TrainingService.Domain.Artifacts;

/// <summary>One stored object.</summary>
public sealed record StoredObject(string Key, long Bytes, string Sha256)
{
    /// <summary>When it was stored, by the store's clock; set by listings alone.</summary>
    public DateTimeOffset? StoredAt { get; init; }
}

/// <summary>
/// Bytes under keys: a folder on the embedded profile, an S3 bucket in production. What may pass by itself is tried again here for
/// some seconds; after that, and for every other failure of the store, <see cref="ArtifactStoreException"/> is thrown.
/// </summary>
public interface IArtifactStore
{
    /// <summary>
    /// Stores a stream under a key, replacing what stood there. Memory stays flat whatever the length. The object appears whole or
    /// not at all. A put that was interrupted is taken up again by the next one to the same key, which sends only what is missing.
    /// </summary>
    /// <param name="content">May implement <see cref="IWriteFence"/>.</param>
    /// <returns>Length and sha256 of what was sent, computed while streaming; the store has confirmed both the length and the bytes.</returns>
    Task<StoredObject> PutAsync(string key, Stream content, string contentType, CancellationToken cancellationToken);

    /// <summary>Opens an object for reading, asynchronously only; null when there is none. A connection that breaks is taken up where it broke.</summary>
    /// <param name="range">First byte and last byte, both included; null: all.</param>
    Task<Stream?> OpenReadAsync(string key, (long First, long Last)? range, CancellationToken cancellationToken);

    /// <summary>Keys and lengths below a prefix, in no order; <see cref="StoredObject.Sha256"/> is empty here.</summary>
    IAsyncEnumerable<StoredObject> ListAsync(string prefix, CancellationToken cancellationToken);

    /// <summary>Removes an object; that it is not there is no error.</summary>
    Task DeleteAsync(string key, CancellationToken cancellationToken);

    /// <summary>Removes what interrupted puts left that began before a time, and returns how many there were.</summary>
    Task<int> RemoveUnfinishedAsync(DateTimeOffset before, CancellationToken cancellationToken);

    /// <summary>A URL from which a client may read the object for a while; null when the API must stream it.</summary>
    Task<Uri?> PresignAsync(string key, string downloadName, TimeSpan lifetime, CancellationToken cancellationToken);
}
