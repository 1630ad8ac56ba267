using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Logging.Console;
using Microsoft.Extensions.Options;
using TrainingService.Infrastructure;
using TrainingService.Training;

namespace TrainingService.Worker;

/// <summary>
/// The console's log in the framework's simple form, in which text of strangers stays text: no character of it ends a line, steers the terminal
/// or turns the direction of writing.
/// </summary>
internal sealed class PlainConsole(IOptionsMonitor<ConsoleFormatterOptions> options, TimeProvider clock) : ConsoleFormatter(QuietLogs.ConsoleFormatter)
{
    private const string Indent = "      ";

    public override void Write<TState>(in LogEntry<TState> logEntry, IExternalScopeProvider? scopeProvider, TextWriter textWriter)
    {
        var message = logEntry.Formatter(logEntry.State, logEntry.Exception);
        if (logEntry.Exception is null && message is null)
        {
            return;
        }

        var settings = options.CurrentValue;
        if (settings.TimestampFormat is { } format)
        {
            var now = settings.UseUtcTimestamp ? clock.GetUtcNow() : clock.GetLocalNow();
            textWriter.Write(now.ToString(format, System.Globalization.CultureInfo.InvariantCulture));
        }

        textWriter.WriteLine($"{Word(logEntry.LogLevel)}: {logEntry.Category}[{logEntry.EventId.Id}]");
        if (settings.IncludeScopes)
        {
            scopeProvider?.ForEachScope((scope, writer) => writer.WriteLine($"{Indent}=> {SafeText.Escape(scope?.ToString() ?? "")}"), textWriter);
        }

        textWriter.WriteLine(Indent + SafeText.Escape(message ?? ""));
        foreach (var line in logEntry.Exception?.ToString().Split('\n') ?? [])
        {
            textWriter.WriteLine(Indent + SafeText.Escape(line.TrimEnd('\r')));
        }
    }

    private static string Word(LogLevel level) => level switch
    {
        LogLevel.Trace => "trce",
        LogLevel.Debug => "dbug",
        LogLevel.Information => "info",
        LogLevel.Warning => "warn",
        LogLevel.Error => "fail",
        _ => "crit",
    };
}

/// <summary>Registers <see cref="PlainConsole"/>.</summary>
public static class PlainConsoleLogging
{
    public static ILoggingBuilder AddPlainConsole(this ILoggingBuilder logging)
    {
        logging.AddConsoleFormatter<PlainConsole, ConsoleFormatterOptions>();
        return logging;
    }
}
