using System.Diagnostics;
using System.Globalization;

namespace TrainingService.Api.Http;

/// <summary>Names every request in its answer and in the log.</summary>
internal static class RequestIds
{
    private static readonly object ItemKey = new();
    private static readonly Func<ILogger, string, IDisposable?> Scope = LoggerMessage.DefineScope<string>("request {RequestId}");

    public static string Of(HttpContext context) =>
        context.Items.TryGetValue(ItemKey, out var id) ? (string)id! : context.TraceIdentifier;

    public static IApplicationBuilder UseRequestIds(this IApplicationBuilder app)
    {
        var logger = app.ApplicationServices.GetRequiredService<ILoggerFactory>().CreateLogger(typeof(RequestIds));
        return app.Use(async (context, next) =>
        {
            var id = $"req_{Guid.CreateVersion7():N}";
            var started = Stopwatch.GetTimestamp();
            context.Items[ItemKey] = id;
            context.Response.OnStarting(() =>
            {
                context.Response.Headers["x-request-id"] = id;
                context.Response.Headers["openai-version"] = "2020-10-01";
                context.Response.Headers["openai-processing-ms"] =
                    ((long)Stopwatch.GetElapsedTime(started).TotalMilliseconds).ToString(CultureInfo.InvariantCulture);
                return Task.CompletedTask;
            });
            using (Scope(logger, id))
            {
                await next(context);
            }
        });
    }
}
