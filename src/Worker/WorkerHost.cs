using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Health;

namespace TrainingService.Worker;

/// <summary>The verb <c>run</c>: a worker of its own, in production.</summary>
public static class WorkerHost
{
    /// <param name="args">Settings such as <c>--Worker:Concurrency=2</c>; <c>migrate</c> creates and upgrades the tables and ends;
    /// <c>health URL</c> asks a running process how it is.</param>
    /// <returns>The exit code.</returns>
    public static async Task<int> RunAsync(string[] args, CancellationToken cancellationToken = default)
    {
        if (args is ["health", ..])
        {
            return await HealthProbe.RunAsync(args.ElementAtOrDefault(1), Console.Out);
        }

        var builder = WebApplication.CreateSlimBuilder(args);
        builder.Configuration.AddQuietLogs();
        builder.Logging.AddPlainConsole();
        builder.Configuration.AddSecretFiles();
        builder.Services.AddTrainingServiceInfrastructure(builder.Configuration);
        builder.Services.AddTrainingWorker(builder.Configuration);
        var options = builder.Configuration.GetSection(WorkerOptions.Section).Get<WorkerOptions>() ?? new WorkerOptions();
        builder.WebHost.UseUrls(options.HealthUrl);
        await using var app = builder.Build();
        if (args is ["migrate", ..])
        {
            await app.Services.GetRequiredService<DatabaseMigrator>().MigrateAsync(cancellationToken);
            return 0;
        }

        app.MapHealth();
        await ((IHost)app).RunAsync(cancellationToken);
        return 0;
    }
}
