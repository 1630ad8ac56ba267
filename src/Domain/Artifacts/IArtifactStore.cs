namespace TrainingService.Domain.Artifacts;

/// <summary>One stored object.</summary>
public sealed record StoredObject(string Key, long Bytes, string Sha256);

/// <summary>Bytes under keys: a folder on the embedded profile, an S3 bucket in production.</summary>
public interface IArtifactStore
{
    /// <summary>Stores a stream under a key, replacing what stood there. Memory stays flat whatever the length.</summary>
    /// <returns>Length and sha256 of what was stored, computed while streaming.</returns>
    Task<StoredObject> PutAsync(string key, Stream content, string contentType, CancellationToken cancellationToken);

    /// <summary>Opens an object for reading; null when there is none.</summary>
    /// <param name="range">First byte and last byte, both included; null: all.</param>
    Task<Stream?> OpenReadAsync(string key, (long First, long Last)? range, CancellationToken cancellationToken);

    /// <summary>Keys and lengths below a prefix; <see cref="StoredObject.Sha256"/> is empty here.</summary>
    IAsyncEnumerable<StoredObject> ListAsync(string prefix, CancellationToken cancellationToken);

    Task DeleteAsync(string key, CancellationToken cancellationToken);

    /// <summary>A URL from which a client may read the object for a while; null when the API must stream it.</summary>
    Task<Uri?> PresignAsync(string key, string downloadName, TimeSpan lifetime, CancellationToken cancellationToken);
}
