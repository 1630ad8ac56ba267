using System.Data.Common;
using System.Net.Sockets;
using Microsoft.Data.Sqlite;
using Npgsql;

namespace TrainingService.Infrastructure.Data;

/// <summary>Tells a database that is away, and may answer again, from a statement that can never succeed.</summary>
public static class DatabaseFailure
{
    /// <summary>Whether the same statement may succeed later: no connection, a server that starts or stops, a full disk, a lost race.</summary>
    public static bool MayPass(Exception failure)
    {
        for (var e = failure; e is not null; e = e.InnerException)
        {
            switch (e)
            {
                case PostgresException refused:
                    return !IsFinal(refused.SqlState);
                case SqliteException refused:
                    return !IsFinal(refused.SqliteErrorCode);
                case DbException or TimeoutException or SocketException:
                    return true;
                default:
                    break;
            }
        }

        return false;
    }

    /// <summary>Classes 22 (data), 23 (constraints), 42 (syntax and access): the statement is at fault.</summary>
    private static bool IsFinal(string sqlState) => sqlState.Length == 5 && sqlState[..2] is "22" or "23" or "42";

    /// <summary>SQLITE_ERROR, SQLITE_CONSTRAINT, SQLITE_MISMATCH, SQLITE_MISUSE and SQLITE_RANGE: the statement is at fault.</summary>
    private static bool IsFinal(int code) => code is 1 or 19 or 20 or 21 or 25;
}
