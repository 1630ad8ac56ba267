using TrainingService.Api;
using TrainingService.Infrastructure;

var app = ApiApplication.Build(args);
if (args.FirstOrDefault() == "migrate")
{
    await app.Services.GetRequiredService<DatabaseMigrator>().MigrateAsync(CancellationToken.None);
    return;
}

await app.RunAsync();
