namespace TrainingService.Domain.Artifacts;

/// <summary>The artifact store failed, or did not keep what it was given. Trying again later may help.</summary>
public sealed class ArtifactStoreException(string message, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>There is no room: time alone does not help, somebody must make some.</summary>
    public bool IsFull { get; init; }
}
