namespace TrainingService.Domain.Artifacts;

/// <summary>The artifact store failed, or did not keep what it was given. Trying again later may help.</summary>
public sealed class ArtifactStoreException(string message, Exception? inner = null) : Exception(message, inner);
