using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json.Nodes;

namespace TrainingService.EndToEnd.Tests.Running;

/// <summary>The service as its users run it: real processes, a real port, its own data.</summary>
public abstract class RunningService : IAsyncLifetime
{
    private static readonly Dictionary<string, string> NoSettings = [];

    /// <summary>Ends a test that hangs; says nothing about how fast the service is, since machines are shared.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(10);

    private readonly List<ServiceProcess> _processes = [];

    protected RunningService() => Folder = Directory.CreateTempSubdirectory("training-service-").FullName;

    /// <summary>Base address, without a slash at its end.</summary>
    public string Url { get; } = $"http://127.0.0.1:{FreePort()}";

    public HttpClient Http { get; } = new() { Timeout = TimeSpan.FromMinutes(2) };

    /// <summary>Id of the sample base model, registered under the name <c>sample</c>.</summary>
    public string SampleModel { get; private set; } = "";

    protected string Folder { get; }

    private ServiceProcess[] Processes
    {
        get
        {
            lock (_processes)
            {
                return [.. _processes];
            }
        }
    }

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

    public virtual async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        foreach (var process in Enumerable.Reverse(Processes))
        {
            await process.DisposeAsync();
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
        while (patience.Elapsed < Patience)
        {
            var state = await Get($"/v1/jobs/{job}");
            if ((string)state["status"]! is "succeeded" or "failed" or "cancelled")
            {
                return state;
            }

            await Task.Delay(200);
        }

        throw new TimeoutException($"{job} did not end within {Patience.TotalMinutes} minutes.\n{Logs}");
    }

    /// <summary>What the processes have written so far.</summary>
    public string Logs => string.Join('\n', Processes.Select(process => process.Log));

    protected abstract Task StartProcesses();

    /// <summary>Starts one of the programs.</summary>
    /// <param name="more">Settings of this process alone; they win.</param>
    protected ServiceProcess Start(string project, IReadOnlyDictionary<string, string>? more, params string[] words)
    {
        var process = ServiceProcess.Start("dotnet", [Repository.Program(project), .. words], [.. Settings, .. more ?? NoSettings], Folder);
        Keep(process);
        return process;
    }

    /// <summary>A process that ends with the service.</summary>
    protected void Keep(ServiceProcess process)
    {
        lock (_processes)
        {
            _processes.Add(process);
        }
    }

    /// <summary>Follows the service until it can do all that it is for.</summary>
    public async Task WaitUntilReady()
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
            catch (HttpRequestException) when (patience.Elapsed < Patience)
            {
                // not listening yet
            }

            if (patience.Elapsed > Patience || Processes.Any(process => process.Crashed))
            {
                throw new InvalidOperationException($"The service did not become ready.\n{Logs}");
            }

            await Task.Delay(100);
        }
    }

    /// <summary>Follows the service until it says that it cannot do what it is for, and returns its words. A good look is believed for some seconds.</summary>
    public async Task<string> WaitUntilNotReady()
    {
        for (var patience = Stopwatch.StartNew(); patience.Elapsed < Patience; await Task.Delay(100))
        {
            using var answer = await Http.GetAsync(new Uri("/health/ready", UriKind.Relative));
            if (answer.StatusCode == HttpStatusCode.ServiceUnavailable)
            {
                return await answer.Content.ReadAsStringAsync();
            }
        }

        throw new TimeoutException($"The service went on saying that it is ready.\n{Logs}");
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
        Start("Api", null);
        return Task.CompletedTask;
    }
}
