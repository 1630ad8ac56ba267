using System.Net;
using System.Xml;
using Amazon.Runtime;
using Amazon.S3;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Which failures are the store's, which of them may pass, and how they are told.</summary>
internal static class S3Failures
{
    private static readonly string[] PassingCodes =
        ["SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "InternalError", "ServiceUnavailable", "OperationAborted", "TooManyRequests", "Throttling"];

    /// <summary>Whether a failure comes from the store or the way to it. A cancellation counts: the caller's own has been ruled out before.</summary>
    public static bool IsOfStore(Exception failure) =>
        failure is AmazonClientException or AmazonServiceException or HttpRequestException or IOException or OperationCanceledException
            or TimeoutException or XmlException;

    /// <summary>Whether the same request may succeed a moment later.</summary>
    public static bool MayPass(Exception failure) => failure switch
    {
        // A status says more than what the client made of the body; none means that the answer never came.
        AmazonServiceException { StatusCode: not 0 } answer =>
            answer.StatusCode is HttpStatusCode.RequestTimeout or HttpStatusCode.TooManyRequests
            || (answer.StatusCode >= HttpStatusCode.InternalServerError && answer.StatusCode != HttpStatusCode.NotImplemented)
            || PassingCodes.Contains(answer.ErrorCode),
        _ => true,
    };

    public static bool HasStatus(Exception? failure, HttpStatusCode status) =>
        failure is AmazonS3Exception answer && answer.StatusCode == status;

    public static ArtifactStoreException Describe(string verb, string key, Exception failure)
    {
        var isFull = failure is AmazonS3Exception { StatusCode: HttpStatusCode.InsufficientStorage }
            or AmazonS3Exception { ErrorCode: "XMinioStorageFull" or "QuotaExceeded" or "EntityQuotaExceeded" };
        var reason = failure is OperationCanceledException ? "it did not answer in time" : failure.Message;
        return new ArtifactStoreException($"The artifact store could not {verb} '{key}': {reason}", failure) { IsFull = isFull };
    }
}
