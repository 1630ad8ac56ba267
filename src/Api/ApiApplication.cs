using Microsoft.Extensions.Configuration.Memory;
using TrainingService.Api.Auth;
using TrainingService.Api.Files;
using TrainingService.Api.FineTuning;
using TrainingService.Api.Health;
using TrainingService.Api.Http;
using TrainingService.Api.Jobs;
using TrainingService.Api.Methods;
using TrainingService.Api.Models;
using TrainingService.Api.OpenApi;
using TrainingService.Infrastructure;

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
        // The lowest of all sources: a log line per query and request is for those who ask for it.
        builder.Configuration.Sources.Insert(0, new MemoryConfigurationSource
        {
            InitialData = new Dictionary<string, string?>
            {
                ["Logging:LogLevel:Microsoft.EntityFrameworkCore"] = "Warning",
                ["Logging:LogLevel:Microsoft.AspNetCore"] = "Warning",
            },
        });
        var services = builder.Services;
        if (!HasAddress(builder.Configuration))
        {
            builder.WebHost.UseUrls(StandardUrl);
        }

        builder.AddKeyAuthentication();
        services.AddTrainingServiceInfrastructure(builder.Configuration);
        services.AddOptions<UploadOptions>().BindConfiguration(UploadOptions.Section).ValidateDataAnnotations().ValidateOnStart();
        services.AddOptions<ModelOptions>().BindConfiguration(ModelOptions.Section).ValidateDataAnnotations().ValidateOnStart();
        services.ConfigureHttpJsonOptions(json => Wire.Configure(json.SerializerOptions));
        services.Configure<RouteHandlerOptions>(options => options.ThrowOnBadRequest = true);
        services.AddExceptionHandler<ErrorHandling>();
        services.AddScoped<JobSubmission>();
        services.AddScoped<ModelRegistration>();
        services.AddHealth();
        services.AddApiDescription();
        builder.WebHost.ConfigureKestrel((context, kestrel) =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize =
                (context.Configuration.GetSection(UploadOptions.Section).Get<UploadOptions>() ?? new UploadOptions()).LargestJsonBytes;
        });
    }

    private static void Map(WebApplication app)
    {
        app.UseRequestIds();
        app.UseExceptionHandler(_ => { });
        app.UseStatusCodePages(ErrorHandling.WriteEmptyStatus);
        app.UseAuthentication();
        app.UseAuthorization();
        app.UseDefaultFiles();
        app.UseStaticFiles();
        app.MapFiles();
        app.MapModels();
        app.MapJobs();
        app.MapFineTuning();
        app.MapMethods();
        app.MapHealth();
        app.MapApiDescription();
    }

    private static bool HasAddress(ConfigurationManager configuration) =>
        new[] { "urls", "http_ports", "https_ports" }.Any(name => !string.IsNullOrEmpty(configuration[name]))
        || configuration.GetSection("Kestrel:Endpoints").GetChildren().Any();
}
