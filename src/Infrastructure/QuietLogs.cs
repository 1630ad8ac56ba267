using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Configuration.Memory;

namespace TrainingService.Infrastructure;

/// <summary>How loud a service's log is unless its operator says otherwise.</summary>
public static class QuietLogs
{
    /// <summary>Name of the console's formatter unless the operator chooses another.</summary>
    public const string ConsoleFormatter = "plain";

    /// <summary>Adds the lowest of all sources: a log line per query and request is for those who ask for it.</summary>
    public static void AddQuietLogs(this IConfigurationBuilder configuration) => configuration.Sources.Insert(0, new MemoryConfigurationSource
    {
        InitialData = new Dictionary<string, string?>
        {
            ["Logging:LogLevel:Microsoft.EntityFrameworkCore"] = "Warning",

            // These two log an exception before they throw it; it is logged where nobody answers it.
            ["Logging:LogLevel:Microsoft.EntityFrameworkCore.Update"] = "Critical",
            ["Logging:LogLevel:Microsoft.EntityFrameworkCore.Database.Command"] = "Critical",
            ["Logging:LogLevel:Microsoft.AspNetCore"] = "Warning",
            ["Logging:LogLevel:TrainingService.Api.Auth"] = "Warning",

            // Ours, which leaves no character of a stranger's text to steer a terminal or to forge a line; "json" does so too.
            ["Logging:Console:FormatterName"] = ConsoleFormatter,
        },
    });
}
