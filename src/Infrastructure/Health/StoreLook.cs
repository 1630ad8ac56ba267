using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Health;

/// <summary>The artifact store takes an object and gives it back.</summary>
internal sealed class StoreLook(IArtifactStore store) : IReadinessLook
{
    private static readonly byte[] Probe = [1];
    private static readonly string Key = $"health/{Environment.MachineName.ToLowerInvariant()}-{Environment.ProcessId}";

    public async Task<string?> FindFaultAsync(CancellationToken cancellationToken)
    {
        using var content = new MemoryStream(Probe);
        await store.PutAsync(Key, content, "application/octet-stream", cancellationToken);
        await using var stored = await store.OpenReadAsync(Key, null, cancellationToken);
        var read = new byte[Probe.Length];
        return stored is not null && await stored.ReadAtLeastAsync(read, read.Length, throwOnEndOfStream: false, cancellationToken) == Probe.Length && read[0] == Probe[0]
            ? null
            : "The artifact store lost what it was given.";
    }
}
