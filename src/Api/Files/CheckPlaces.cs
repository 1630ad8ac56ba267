using System.Threading.RateLimiting;
using Microsoft.Extensions.Options;
using TrainingService.Api.Http;

namespace TrainingService.Api.Files;

/// <summary>Lets few requests read rows at a time: each may take much memory and a processor, and the rest of the service has to go on.</summary>
internal sealed class CheckPlaces(IOptions<UploadOptions> options) : IDisposable
{
    private const int WaitingPerPlace = 8;

    private readonly ConcurrencyLimiter _places = new(new ConcurrencyLimiterOptions
    {
        PermitLimit = options.Value.ConcurrentChecks,
        QueueLimit = options.Value.ConcurrentChecks * WaitingPerPlace,
        QueueProcessingOrder = QueueProcessingOrder.OldestFirst,
    });

    /// <summary>Waits for a place, which is free again when the result is disposed.</summary>
    /// <exception cref="RequestException">Too many wait already.</exception>
    public async Task<IDisposable> TakeAsync(CancellationToken cancellationToken)
    {
        var lease = await _places.AcquireAsync(1, cancellationToken);
        if (lease.IsAcquired)
        {
            return lease;
        }

        lease.Dispose();
        throw new RequestException(StatusCodes.Status429TooManyRequests, new ErrorDetail(
            "Too many files are being checked at the moment; try again in a while (setting Files:ConcurrentChecks).",
            ErrorDetail.ServerError, null, "too_many_checks"));
    }

    public void Dispose() => _places.Dispose();
}
