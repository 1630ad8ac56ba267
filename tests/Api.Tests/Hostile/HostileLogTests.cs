using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Logging.Console;
using Microsoft.Extensions.Options;

namespace TrainingService.Api.Tests.Hostile;

/// <summary>Paths, names and sentences of strangers stand in log lines, and must not make lines of their own.</summary>
public sealed class HostileLogTests(EmbeddedApi service) : ApiTests(service), IClassFixture<EmbeddedApi>
{
    private const string Hostile = "/v1/x\r\ncrit: Forged[0]\n\u001B[2J\u009B\u2028\u202Eend";
    private const string Escaped = @"/v1/x\u000D\u000Acrit: Forged[0]\u000A\u001B[2J\u009B\u2028\u202Eend";

    private static readonly string End = Environment.NewLine;

    [Fact]
    public void The_console_writes_what_strangers_say_on_one_line()
    {
        var line = Write(null);

        Assert.Equal($"fail: Some.Category[7]{End}      GET {Escaped} failed{End}", line);
    }

    [Fact]
    public void The_text_of_an_exception_cannot_leave_its_column()
    {
        var lines = Write(new InvalidOperationException(Hostile)).Split(End, StringSplitOptions.RemoveEmptyEntries);

        Assert.All(lines.Skip(1), line => Assert.StartsWith("      ", line, StringComparison.Ordinal));
        Assert.DoesNotContain(lines, line => line.Contains('\r') || line.Contains('\u001B') || line.Contains('\u202E'));
    }

    [Fact]
    public void It_is_the_formatter_unless_the_operator_chooses_another()
    {
        Assert.Equal("plain", Service.Services.GetRequiredService<IOptions<ConsoleLoggerOptions>>().Value.FormatterName);

        using var chosen = ApiApplication.Build([$"--DataFolder={Service.Folder}", "--Logging:Console:FormatterName=json"]);
        Assert.Equal("json", chosen.Services.GetRequiredService<IOptions<ConsoleLoggerOptions>>().Value.FormatterName);
    }

    private string Write(Exception? exception)
    {
        var formatter = Service.Services.GetServices<ConsoleFormatter>().Single(one => one.Name == "plain");
        using var writer = new StringWriter();
        formatter.Write(
            new LogEntry<string>(LogLevel.Error, "Some.Category", new EventId(7), $"GET {Hostile} failed", exception, (state, _) => state), null, writer);
        return writer.ToString();
    }
}
