using Microsoft.Extensions.Options;
using TrainingService.Infrastructure.Health;
using TrainingService.Worker.Supervision;

namespace TrainingService.Worker;

/// <summary>There is room for attempts in work and for the cache, which may lie on another disk than the data.</summary>
internal sealed class WorkSpaceLook(WorkerPaths paths, IOptions<HealthOptions> health) : IReadinessLook
{
    public Task<string?> FindFaultAsync(CancellationToken cancellationToken) =>
        Task.FromResult(SpaceLook.FindFault(paths.Cache, health.Value.LeastFreeBytes));
}
