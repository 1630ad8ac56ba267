using Hangfire;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using TrainingService.Infrastructure.Health;
using TrainingService.Infrastructure.Queue;
using TrainingService.Worker.Supervision;

namespace TrainingService.Worker;

/// <summary>Registers the supervisor of training processes and the Hangfire server that wakes it.</summary>
public static class WorkerServices
{
    internal static readonly TimeSpan HeartbeatInterval = TimeSpan.FromSeconds(30);

    /// <summary>Needs the services of <c>AddTrainingServiceInfrastructure</c>, registered before, so that the database is ready first.</summary>
    public static IServiceCollection AddTrainingWorker(this IServiceCollection services, IConfiguration configuration)
    {
        var section = configuration.GetSection(WorkerOptions.Section);
        services.AddOptions<WorkerOptions>().Bind(section).ValidateDataAnnotations().ValidateOnStart();
        services.AddSingleton<WorkerPaths>();
        services.AddSingleton<WorkFolders>();
        services.AddSingleton<CacheEntries>();
        services.AddSingleton<ArtifactCache>();
        services.AddSingleton<CheckpointRestore>();
        services.AddSingleton<HubFolders>();
        services.AddSingleton<JobInputs>();
        services.AddSingleton(_ => new KernelKills());
        services.AddSingleton<DeviceSlots>();
        services.AddSingleton<ChildRun>();
        services.AddSingleton<Settlement>();
        services.AddSingleton<JobAttempt>();
        services.AddSingleton<ITrainingJobRunner, TrainingJobRunner>();
        services.AddReadiness<WorkerLook>("worker").AddReadiness<WorkSpaceLook>("work_space");
        var options = section.Get<WorkerOptions>() ?? new WorkerOptions();
        var grace = TimeSpan.FromSeconds(options.ShutdownGraceSeconds + 30);
        services.AddHangfireServer(server =>
        {
            server.Queues = [HangfireJobQueue.QueueName];
            server.ServerName = WorkerName.Value;
            server.WorkerCount = options.Concurrency;
            server.HeartbeatInterval = HeartbeatInterval;
            server.ServerTimeout = TimeSpan.FromHours(12);
            server.ShutdownTimeout = grace;
            server.SchedulePollingInterval = TimeSpan.FromMinutes(1);
        });
        services.Configure<HostOptions>(host => host.ShutdownTimeout = grace + TimeSpan.FromSeconds(30));
        return services;
    }
}
