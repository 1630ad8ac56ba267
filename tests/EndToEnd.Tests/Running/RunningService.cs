using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;

namespace TrainingService.EndToEnd.Tests.Running;

/// <summary>The service as its users run it: real processes, a real port, its own data.</summary>
public abstract class RunningService : IAsyncLifetime
{
    private readonly List<(Process Process, StringBuilder Log)> _processes = [];

    protected RunningService() => Folder = Directory.CreateTempSubdirectory("training-service-").FullName;

    /// <summary>Base address, without a slash at its end.</summary>
    public string Url { get; } = $"http://127.0.0.1:{FreePort()}";

    public HttpClient Http { get; } = new() { Timeout = TimeSpan.FromMinutes(2) };

    /// <summary>Id of the sample base model, registered under the name <c>sample</c>.</summary>
    public string SampleModel { get; private set; } = "";

    protected string Folder { get; }

    /// <summary>Configuration of the processes, as environment variables.</summary>
    protected abstract IReadOnlyDictionary<string, string> Settings { get; }

    public async ValueTask InitializeAsync()
    {
        await StartProcesses();
        Http.BaseAddress = new Uri(Url);
        await WaitUntilReady();
        SampleModel = (string)(await Post("/v1/models", new JsonObject
        {
            ["name"] = "sample",
            ["path"] = Repository.Sample("model"),
        }))["id"]!;
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        foreach (var (process, _) in Enumerable.Reverse(_processes))
        {
            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync();
            process.Dispose();
        }

        Http.Dispose();
        Directory.Delete(Folder, recursive: true);
    }

    public async Task<JsonNode> Get(string path) => await Body(await Http.GetAsync(new Uri(path, UriKind.Relative)));

    public async Task<JsonNode> Post(string path, JsonNode? body) => await Body(await Http.PostAsJsonAsync(path, body));

    /// <summary>Uploads a file for fine-tuning and returns its id.</summary>
    public async Task<string> Upload(string path)
    {
        using var form = new MultipartFormDataContent
        {
            { new StringContent("fine-tune"), "purpose" },
            { new ByteArrayContent(await File.ReadAllBytesAsync(path)), "file", Path.GetFileName(path) },
        };
        return (string)(await Body(await Http.PostAsync(new Uri("/v1/files", UriKind.Relative), form)))["id"]!;
    }

    /// <summary>Follows a job until it can change no more.</summary>
    public async Task<JsonNode> WaitForEnd(string job)
    {
        var patience = Stopwatch.StartNew();
        while (patience.Elapsed < TimeSpan.FromMinutes(4))
        {
            var state = await Get($"/v1/jobs/{job}");
            if ((string)state["status"]! is "succeeded" or "failed" or "cancelled")
            {
                return state;
            }

            await Task.Delay(200);
        }

        throw new TimeoutException($"{job} did not end within four minutes.\n{Logs}");
    }

    /// <summary>What the processes have written so far.</summary>
    public string Logs
    {
        get
        {
            var text = new StringBuilder();
            foreach (var (_, log) in _processes)
            {
                lock (log)
                {
                    text.Append(log);
                }
            }

            return text.ToString();
        }
    }

    protected abstract Task StartProcesses();

    protected Process Start(string project, params string[] words)
    {
        var start = new ProcessStartInfo("dotnet")
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = Folder,
        };
        start.ArgumentList.Add(Repository.Program(project));
        foreach (var word in words)
        {
            start.ArgumentList.Add(word);
        }

        foreach (var (name, value) in Settings)
        {
            start.Environment[name] = value;
        }

        var log = new StringBuilder();
        var process = Process.Start(start)!;
        void Keep(object _, DataReceivedEventArgs line)
        {
            lock (log)
            {
                log.AppendLine(line.Data);
            }
        }

        process.OutputDataReceived += Keep;
        process.ErrorDataReceived += Keep;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        _processes.Add((process, log));
        return process;
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    private async Task<JsonNode> Body(HttpResponseMessage response)
    {
        var text = await response.Content.ReadAsStringAsync();
        return response.IsSuccessStatusCode
            ? JsonNode.Parse(text)!
            : throw new HttpRequestException($"{response.RequestMessage!.RequestUri} answered {(int)response.StatusCode}: {text}\n{Logs}");
    }

    private async Task WaitUntilReady()
    {
        var patience = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                using var answer = await Http.GetAsync(new Uri("/health/ready", UriKind.Relative));
                if (answer.IsSuccessStatusCode)
                {
                    return;
                }
            }
            catch (HttpRequestException) when (patience.Elapsed < TimeSpan.FromSeconds(60))
            {
                // not listening yet
            }

            if (patience.Elapsed > TimeSpan.FromSeconds(60) || _processes.Any(entry => entry.Process.HasExited && entry.Process.ExitCode != 0))
            {
                throw new InvalidOperationException($"The service did not become ready.\n{Logs}");
            }

            await Task.Delay(100);
        }
    }
}

/// <summary>The embedded profile: one process, SQLite and a folder.</summary>
public class EmbeddedService : RunningService
{
    protected override IReadOnlyDictionary<string, string> Settings => new Dictionary<string, string>
    {
        ["Profile"] = "embedded",
        ["ASPNETCORE_URLS"] = Url,
        ["DataFolder"] = Path.Combine(Folder, "data"),
    };

    protected override Task StartProcesses()
    {
        Start("Api");
        return Task.CompletedTask;
    }
}
