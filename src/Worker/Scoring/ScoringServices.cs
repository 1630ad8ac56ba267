using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using TrainingService.Worker.Supervision;

namespace TrainingService.Worker.Scoring;

/// <summary>Registers what serves reward models beside an API.</summary>
public static class ScoringServices
{
    /// <summary>Needs the services of <c>AddTrainingServiceInfrastructure</c>; call it after <c>AddTrainingWorker</c>, whose cache it shares where there is one.</summary>
    public static IServiceCollection AddScoring(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddOptions<ScoresOptions>().Bind(configuration.GetSection(ScoresOptions.Section)).ValidateDataAnnotations().ValidateOnStart();
        services.AddSingleton<ScoreService>();
        if (services.Any(service => service.ServiceType == typeof(WorkerPaths)))
        {
            return services;
        }

        services.AddOptions<WorkerOptions>().Bind(configuration.GetSection(WorkerOptions.Section)).ValidateDataAnnotations().ValidateOnStart();
        services.TryAddSingleton<WorkerPaths>();
        services.TryAddSingleton<CacheEntries>();
        services.TryAddSingleton<ArtifactCache>();
        services.TryAddSingleton<CheckpointRestore>();
        services.TryAddSingleton<HubFolders>();
        services.TryAddSingleton<JobInputs>();
        return services;
    }
}
