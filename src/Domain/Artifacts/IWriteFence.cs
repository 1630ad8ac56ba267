namespace TrainingService.Domain.Artifacts;

/// <summary>
/// Implemented by a content stream whose owner may lose the right to write while it is being stored. The store asks before each
/// request, before each chunk of a body and before an object becomes visible; reading alone would not do, since the store reads ahead.
/// </summary>
public interface IWriteFence
{
    /// <summary>Makes sure that the right still stands. Throws when nothing may be written any more, and the put ends with that.</summary>
    ValueTask HoldAsync(CancellationToken cancellationToken);
}
