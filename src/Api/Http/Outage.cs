using System.Data.Common;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Api.Http;

/// <summary>Failures that are neither the client's nor ours to mend: the same request, sent later, may get through.</summary>
internal static class Outage
{
    private const int DiskFull = 13;   // SQLITE_FULL
    private const string NoSpaceLeft = "53100";   // Postgres: disk_full

    /// <summary>What <c>retry-after</c> says.</summary>
    public const string RetryAfterSeconds = "10";

    private static readonly int[] NoRoom = [28, 122, unchecked((int)0x80070070)];   // ENOSPC, EDQUOT, ERROR_DISK_FULL

    /// <summary>The answer; null for a failure of another kind.</summary>
    public static ErrorResult? ResultFor(Exception failure)
    {
        for (var e = failure; e is not null; e = e.InnerException)
        {
            switch (e)
            {
                case DbException full when full.SqlState == NoSpaceLeft || full is Microsoft.Data.Sqlite.SqliteException { SqliteErrorCode: DiskFull }:
                    return Full("The database has no room left; ask the operator to make some, then try again.");
                case DbException { IsTransient: true }:
                    return Unavailable("The database does not answer at the moment; try again in a while.", "database_unavailable");
                case ArtifactStoreException { IsFull: true }:
                case IOException when NoRoom.Contains(e.HResult):
                    return Full("The service has no room left to store this; ask the operator to make some, then try again.");
                case ArtifactStoreException:
                    return Unavailable("The artifact store failed; try again in a while.", "store_unavailable");
                default:
                    break;
            }
        }

        return null;
    }

    private static ErrorResult Full(string message) =>
        ErrorResult.Of(StatusCodes.Status507InsufficientStorage, new ErrorDetail(message, ErrorDetail.ServerError, null, "storage_full"));

    private static ErrorResult Unavailable(string message, string code) =>
        ErrorResult.Of(StatusCodes.Status503ServiceUnavailable, new ErrorDetail(message, ErrorDetail.ServerError, null, code));
}
