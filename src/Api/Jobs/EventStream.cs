using System.Globalization;
using System.Reflection;
using System.Text.Json;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Http;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Jobs;

/// <summary>
/// The story of a job as server-sent events: what has happened, then what happens, until the job has ended. The id of an event is its
/// sequence, so a client that was cut off continues with <c>Last-Event-ID</c> and misses nothing.
/// </summary>
internal sealed class EventStream(Guid jobId, AppDbContext db, JsonSerializerOptions json, TimeProvider clock, CancellationToken stopping)
    : IResult, IEndpointMetadataProvider
{
    private const int PageSize = 200;
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan Heartbeat = TimeSpan.FromSeconds(15);

    /// <summary>Whether the client asks for a stream rather than a list.</summary>
    public static bool IsWanted(HttpRequest request, bool? stream) =>
        stream ?? request.GetTypedHeaders().Accept.Any(type => type.MediaType == "text/event-stream");

    public async Task ExecuteAsync(HttpContext httpContext)
    {
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(httpContext.RequestAborted, stopping);
        try
        {
            await WriteAsync(httpContext, ended.Token);
        }
        catch (OperationCanceledException) when (ended.IsCancellationRequested)
        {
            // The client left, or the service stops; a client that is still there comes back with Last-Event-ID.
        }
    }

    static void IEndpointMetadataProvider.PopulateMetadata(MethodInfo method, EndpointBuilder builder) =>
        builder.Metadata.Add(new ProducesResponseTypeMetadata(StatusCodes.Status200OK, typeof(string), ["text/event-stream"]));

    private static long LastSeen(HttpRequest request)
    {
        var text = request.Headers["Last-Event-ID"].ToString();
        if (text.Length == 0)
        {
            return 0;
        }

        return long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var sequence)
            ? sequence
            : throw RequestException.Invalid(
                "invalid_last_event_id", "Last-Event-ID must be the id of an event of this stream: a whole number.", "Last-Event-ID");
    }

    private async Task WriteAsync(HttpContext context, CancellationToken cancellationToken)
    {
        var last = LastSeen(context.Request);
        var response = context.Response;
        var began = false;
        var spoke = clock.GetTimestamp();
        while (true)
        {
            // The status first: the last event is saved together with the final status, so it is read after it.
            var status = await db.Jobs.Where(job => job.Id == jobId).Select(job => job.Status).SingleAsync(cancellationToken);
            var page = await db.Events.AsNoTracking().Where(line => line.JobId == jobId && line.Sequence > last)
                .OrderBy(line => line.Sequence).Take(PageSize).ToListAsync(cancellationToken);
            if (!began)
            {
                if (page.Count == 0 && TrainingJob.IsFinal(status))
                {
                    // A browser stops coming back on this answer.
                    response.StatusCode = StatusCodes.Status204NoContent;
                    return;
                }

                began = true;
                await BeginAsync(context, cancellationToken);
            }

            foreach (var line in page)
            {
                last = line.Sequence;
                var data = JsonSerializer.Serialize(EventResponse.From(line), json);
                await response.WriteAsync($"id: {line.Sequence}\ndata: {data}\n\n", cancellationToken);
            }

            if (page.Count == 0 && TrainingJob.IsFinal(status))
            {
                await response.WriteAsync($"event: done\ndata: {{\"status\":\"{Wire.Name(status)}\"}}\n\n", cancellationToken);
                return;
            }

            if (page.Count > 0)
            {
                spoke = clock.GetTimestamp();
                await response.Body.FlushAsync(cancellationToken);
            }
            else if (clock.GetElapsedTime(spoke) >= Heartbeat)
            {
                spoke = clock.GetTimestamp();
                await response.WriteAsync(": heartbeat\n\n", cancellationToken);
                await response.Body.FlushAsync(cancellationToken);
            }

            if (page.Count < PageSize && !(page.Count > 0 && TrainingJob.IsFinal(status)))
            {
                await Task.Delay(Poll, clock, cancellationToken);
            }
        }
    }

    private static async Task BeginAsync(HttpContext context, CancellationToken cancellationToken)
    {
        context.Features.Get<IHttpResponseBodyFeature>()?.DisableBuffering();
        context.Response.ContentType = "text/event-stream";
        context.Response.Headers.CacheControl = "no-store";
        context.Response.Headers["X-Accel-Buffering"] = "no";
        await context.Response.WriteAsync("retry: 3000\n\n", cancellationToken);
        await context.Response.Body.FlushAsync(cancellationToken);
    }
}
