using Microsoft.Extensions.Options;
using TrainingService.Api.Auth;
using TrainingService.Api.Files;
using TrainingService.Api.FineTuning;
using TrainingService.Api.Http;
using TrainingService.Api.Jobs;
using TrainingService.Api.Methods;
using TrainingService.Api.Models;
using TrainingService.Api.OpenApi;
using TrainingService.Api.Scores;
using TrainingService.Api.Uploads;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Health;
using TrainingService.Worker;
using TrainingService.Worker.Scoring;

namespace TrainingService.Api;

/// <summary>The whole composition. The profile decides by configuration alone which database, store and courier stand behind it.</summary>
public static class ApiApplication
{
    private const string StandardUrl = "http://127.0.0.1:5088";

    public static WebApplication Build(string[] args)
    {
        // The pages lie beside the program, wherever it is started from.
        var builder = WebApplication.CreateBuilder(new WebApplicationOptions { Args = args, ContentRootPath = AppContext.BaseDirectory });
        Configure(builder);
        var app = builder.Build();
        Map(app);
        return app;
    }

    private static void Configure(WebApplicationBuilder builder)
    {
        builder.Configuration.AddQuietLogs();
        builder.Configuration.AddSecretFiles();
        builder.Logging.AddPlainConsole();
        var services = builder.Services;
        if (!HasAddress(builder.Configuration))
        {
            builder.WebHost.UseUrls(StandardUrl);
        }

        builder.AddKeyAuthentication();
        services.AddTrainingServiceInfrastructure(builder.Configuration);
        AddWorker(builder);
        services.AddScoring(builder.Configuration);
        services.AddOptions<UploadOptions>().BindConfiguration(UploadOptions.Section).ValidateDataAnnotations().ValidateOnStart();
        services.AddOptions<ModelOptions>().BindConfiguration(ModelOptions.Section).ValidateDataAnnotations().ValidateOnStart();
        services.AddOptions<JobOptions>().BindConfiguration(JobOptions.Section).ValidateDataAnnotations().ValidateOnStart();
        services.AddSingleton<CheckPlaces>();
        services.ConfigureHttpJsonOptions(json => Wire.Configure(json.SerializerOptions));
        services.Configure<RouteHandlerOptions>(options => options.ThrowOnBadRequest = true);
        services.AddExceptionHandler<ErrorHandling>();
        services.AddScoped<JobSubmission>();
        services.AddScoped<ModelRegistration>();
        services.AddSingleton<HubModels>();
        services.AddScoped<FileReader>();
        services.AddScoped<UploadCompletion>();
        services.AddApiDescription();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = null;   // see BodyLimits
        });
    }

    /// <summary>On the embedded profile the supervisor runs here; in production, in any number of processes of its own.</summary>
    private static void AddWorker(WebApplicationBuilder builder)
    {
        var profile = builder.Configuration.GetValue(nameof(ServiceOptions.Profile), ServiceProfile.Embedded);
        if (profile == ServiceProfile.Embedded && builder.Configuration.GetValue("Worker:Enabled", true))
        {
            builder.Services.AddTrainingWorker(builder.Configuration);
        }
    }

    private static void Map(WebApplication app)
    {
        app.UseRequestIds();
        app.UseExceptionHandler(_ => { });
        app.UseStatusCodePages(ErrorHandling.WriteEmptyStatus);
        app.UseBodyLimits(app.Services.GetRequiredService<IOptions<UploadOptions>>().Value.LargestJsonBytes);
        app.UseAuthentication();
        app.UseAuthorization();
        app.UseDefaultFiles();
        app.UseStaticFiles();
        app.MapFiles();
        app.MapUploads();
        app.MapModels();
        app.MapJobs();
        app.MapFineTuning();
        app.MapMethods();
        app.MapScores();
        app.MapHealth();
        app.MapApiDescription();
    }

    private static bool HasAddress(ConfigurationManager configuration) =>
        new[] { "urls", "http_ports", "https_ports" }.Any(name => !string.IsNullOrEmpty(configuration[name]))
        || configuration.GetSection("Kestrel:Endpoints").GetChildren().Any();
}
