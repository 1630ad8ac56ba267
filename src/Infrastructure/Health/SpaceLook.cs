using Microsoft.Extensions.Options;

namespace TrainingService.Infrastructure.Health;

/// <summary>There is room for data.</summary>
public sealed class SpaceLook(IOptions<ServiceOptions> service, IOptions<HealthOptions> health) : IReadinessLook
{
    public Task<string?> FindFaultAsync(CancellationToken cancellationToken) =>
        Task.FromResult(FindFault(service.Value.DataPath, health.Value.LeastFreeBytes));

    /// <summary>What is wrong with the space below a folder, which need not exist yet.</summary>
    public static string? FindFault(string folder, long leastFreeBytes)
    {
        var place = folder;
        while (!Directory.Exists(place) && Path.GetDirectoryName(place) is { } parent)
        {
            place = parent;
        }

        var free = new DriveInfo(place).AvailableFreeSpace;
        return free >= leastFreeBytes ? null : $"{free >> 20} MiB are free where data is kept; {leastFreeBytes >> 20} MiB are asked for.";
    }
}
