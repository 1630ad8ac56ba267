using Microsoft.AspNetCore.Http.HttpResults;
using TrainingService.Api.Http;
using TrainingService.Training;

namespace TrainingService.Api.Methods;

/// <summary>What a spec may ask for.</summary>
internal static class MethodEndpoints
{
    public static void MapMethods(this IEndpointRouteBuilder routes)
    {
        var methods = routes.MapGroup("/v1/methods").WithTags("Methods").RequireAuthorization();
        methods.MapGet("", List).WithSummary("List every method of every family")
            .WithDescription("family keeps one of: objective, adapter, optimizer, schedule.lr_scheduler.");
        methods.MapGet("/{name}", Get).WithSummary("Read a method: JSON schema, defaults, paper, what it is good for");
    }

    private static Ok<ListPage<Method>> List(string? family = null)
    {
        var methods = MethodCatalogue.All.Where(method => family is null || method.Family == family).ToList();
        return TypedResults.Ok(ListPage.Of(methods, Math.Max(1, methods.Count), method => method, IdOf));
    }

    private static Results<Ok<Method>, ErrorResult> Get(string name) =>
        MethodCatalogue.All.FirstOrDefault(method => method.Name == name || IdOf(method) == name) is { } found
            ? TypedResults.Ok(found)
            : ErrorResult.NotFound("method", name, "name");

    /// <summary>Two families may have a method of the same name.</summary>
    private static string IdOf(Method method) => $"{method.Family}.{method.Name}";
}
