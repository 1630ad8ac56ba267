using TrainingService.Api;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Health;

if (args.FirstOrDefault() == "health")
{
    return await HealthProbe.RunAsync(args.ElementAtOrDefault(1), Console.Out);
}

var app = ApiApplication.Build(args);
if (args.FirstOrDefault() == "migrate")
{
    await app.Services.GetRequiredService<DatabaseMigrator>().MigrateAsync(CancellationToken.None);
    return 0;
}

await app.RunAsync();
return 0;
