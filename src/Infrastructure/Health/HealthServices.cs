using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Diagnostics.HealthChecks;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;

namespace TrainingService.Infrastructure.Health;

/// <summary><c>/health/live</c>: the process answers, whatever it needs is away. <c>/health/ready</c>: what it needs is there.</summary>
public static class HealthServices
{
    /// <summary>Makes readiness look at one more thing.</summary>
    /// <param name="name">Its name in the answer.</param>
    public static IServiceCollection AddReadiness<T>(this IServiceCollection services, string name)
        where T : class, IReadinessLook
    {
        services.AddSingleton<T>().AddSingleton<BoundedCheck<T>>();
        services.AddHealthChecks().AddCheck<BoundedCheck<T>>(name);
        return services;
    }

    /// <summary>Maps both addresses. They are open to everybody, so the answers name faults and show no exception, address or secret.</summary>
    public static void MapHealth(this IEndpointRouteBuilder routes)
    {
        routes.MapHealthChecks("/health/live", new HealthCheckOptions { Predicate = _ => false, ResponseWriter = WriteAsync });
        routes.MapHealthChecks("/health/ready", new HealthCheckOptions { ResponseWriter = WriteAsync });
    }

    internal static void AddHealth(this IServiceCollection services)
    {
        services.AddOptions<HealthOptions>().BindConfiguration(HealthOptions.Section).ValidateDataAnnotations().ValidateOnStart();
        services.AddReadiness<DatabaseLook>("database").AddReadiness<StoreLook>("store").AddReadiness<SpaceLook>("space");
    }

    private static Task WriteAsync(HttpContext context, HealthReport report) => context.Response.WriteAsJsonAsync(
        new HealthResponse(
            Word(report.Status),
            report.Entries.ToDictionary(entry => entry.Key, entry => new HealthPart(Word(entry.Value.Status), entry.Value.Description))),
        context.RequestAborted);

    private static string Word(HealthStatus status) => status.ToString().ToLowerInvariant();

    private sealed record HealthResponse(string Status, IReadOnlyDictionary<string, HealthPart> Checks);

    private sealed record HealthPart(string Status, string? Description);
}
