// Hours of mixed small jobs with random kills: does the service grow? An API process and a worker live through it, a second worker and
// training processes are killed at random and started again. Twice a minute handles, threads, resident memory and files are counted.
//
//   dotnet run bench/soak.cs -- MINUTES FOLDER        bench/soak.sh sets up and calls this
//
// Exit code 1 when what should stay level grew: the medians of the second and the last sixth of the time are compared.
#:property PublishAot=false
#:property JsonSerializerIsReflectionEnabledByDefault=true

using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json.Nodes;

CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
var minutes = double.Parse(args[0]);
var folder = Path.GetFullPath(args[1]);
var root = Directory.GetCurrentDirectory();
var url = Environment.GetEnvironmentVariable("TRAINING_URL") ?? "http://127.0.0.1:5093";
var temporary = Directory.CreateDirectory(Path.Combine(folder, "tmp")).FullName;
var seed = int.Parse(Environment.GetEnvironmentVariable("SOAK_SEED") ?? "1");
var random = new Random(seed);
var counts = new ConcurrentDictionary<string, int>();
using var http = new HttpClient { BaseAddress = new Uri(url), Timeout = TimeSpan.FromMinutes(1) };

using var api = Start("Api", "api");
await Ready();
using var kept = Start("Worker", "worker", "run");
var killed = Start("Worker", "killed", "run");
AppDomain.CurrentDomain.UnhandledException += (_, _) => EndAll();
var model = await Send("/v1/models", new JsonObject { ["name"] = "sample", ["path"] = Path.Combine(root, "samples", "model") });
var modelId = (string)model["id"]!;
var file = await Upload();

var clock = Stopwatch.StartNew();
var end = TimeSpan.FromMinutes(minutes);
var samples = new List<Sample>();
var open = new List<string>();
using var csv = new StreamWriter(Path.Combine(folder, "soak.csv")) { AutoFlush = true };
csv.WriteLine(Sample.Header);
var nextSample = TimeSpan.Zero;
var nextKill = TimeSpan.FromSeconds(20);
while (clock.Elapsed < end)
{
    if (clock.Elapsed > nextSample)
    {
        nextSample += TimeSpan.FromSeconds(30);
        samples.Add(Take());
        csv.WriteLine(samples[^1].Line);
        Console.WriteLine(samples[^1].Line);
    }

    if (api.HasExited || kept.HasExited)
    {
        throw new InvalidOperationException($"{(api.HasExited ? "The API" : "The worker that is never killed")} ended; see the logs in {folder}.");
    }

    if (clock.Elapsed > nextKill)
    {
        nextKill = clock.Elapsed + TimeSpan.FromSeconds(random.Next(10, 40));
        Kill();
    }

    open = await StillOpen(open);
    if (open.Count < 4)
    {
        open.Add(await Submit());
    }

    await Act();
    await Task.Delay(random.Next(200, 1200));
}

Console.WriteLine("Waiting for the last jobs …");
var patience = Stopwatch.StartNew();
while ((open = await StillOpen(open)).Count > 0 && patience.Elapsed < TimeSpan.FromMinutes(10))
{
    foreach (var job in open)
    {
        await Try(() => http.PostAsync($"/v1/jobs/{job}/resume", null));
    }

    await Task.Delay(1000);
}

samples.Add(Take());
csv.WriteLine(samples[^1].Line);
Drawing.Write(Path.Combine(folder, "soak.svg"), samples);
EndAll();
foreach (var (name, count) in counts.OrderBy(pair => pair.Key, StringComparer.Ordinal))
{
    Console.WriteLine($"{name,-28} {count}");
}

return open.Count == 0 & Verdict() ? 0 : 1;

bool Verdict()
{
    if (open.Count > 0)
    {
        Console.WriteLine($"jobs that never ended: {string.Join(", ", open)}");
    }

    var good = true;
    var sixth = Math.Max(1, samples.Count / 6);
    foreach (var (name, value, ratio, slack) in Sample.Watched)
    {
        var early = Median(samples.Skip(sixth).Take(sixth).Select(value));
        var late = Median(samples.TakeLast(sixth).Select(value));
        var level = late <= (early * ratio) + slack;
        good &= level;
        Console.WriteLine($"{name,-28} second sixth {early,8:F0}   last sixth {late,8:F0}   {(level ? "level" : "GREW")}");
    }

    return good;
}

void EndAll()
{
    foreach (var process in new[] { killed, kept, api }.Where(process => !process.HasExited))
    {
        process.Kill(entireProcessTree: true);
    }
}

Process Start(string project, string name, params string[] words)
{
    var start = new ProcessStartInfo("/bin/sh") { WorkingDirectory = folder };
    start.ArgumentList.Add("-c");
    start.ArgumentList.Add($"exec dotnet '{Path.Combine(root, "artifacts", "bin", project, "release", $"TrainingService.{project}.dll")}' {string.Join(' ', words)} >> '{folder}/{name}.log' 2>&1");
    start.Environment["TMPDIR"] = temporary;
    start.Environment["ASPNETCORE_URLS"] = url;
    start.Environment["Models__Roots__0"] = root;
    start.Environment["Worker__WorkFolder"] = Path.Combine(folder, name == "killed" ? "work-killed" : "work");
    if (name == "killed")
    {
        start.Environment["DOTNET_EnableDiagnostics"] = "0";   // a killed runtime would leave its sockets behind
    }

    return Process.Start(start)!;
}

async Task Ready()
{
    for (var wait = Stopwatch.StartNew(); ;)
    {
        try
        {
            using var answer = await http.GetAsync("/health/ready");
            if (answer.IsSuccessStatusCode)
            {
                return;
            }
        }
        catch (HttpRequestException) when (wait.Elapsed < TimeSpan.FromMinutes(2))
        {
        }

        if (wait.Elapsed > TimeSpan.FromMinutes(2))
        {
            throw new InvalidOperationException($"The service did not become ready; see {folder}/api.log.");
        }

        await Task.Delay(200);
    }
}

void Kill()
{
    if (random.Next(3) == 0)
    {
        killed.Kill();   // without its children: they must notice by themselves
        killed.WaitForExit();
        killed.Dispose();
        killed = Start("Worker", "killed", "run");
        Count("killed worker");
        return;
    }

    var children = ChildrenOf(kept.Id).Concat(ChildrenOf(killed.Id)).ToArray();
    if (children.Length > 0 && Native.Kill(children[random.Next(children.Length)], 9) == 0)
    {
        Count("killed training process");
    }
}

async Task<string> Submit()
{
    var kind = random.Next(10);
    var spec = new JsonObject
    {
        ["model"] = modelId,
        ["data"] = new JsonObject { ["train"] = file, ["max_length"] = 64, ["packing"] = kind % 2 == 0, ["validation_split"] = 0.05 },
        ["adapter"] = kind switch
        {
            7 => new JsonObject { ["type"] = "full" },
            _ => new JsonObject { ["type"] = "lora", ["rank"] = 4, ["dropout"] = kind == 3 ? 0.1 : 0.0 },
        },
        ["objective"] = new JsonObject { ["type"] = kind == 8 ? "pretraining" : "sft" },
        ["optimizer"] = new JsonObject { ["type"] = "adamw", ["learning_rate"] = kind == 9 ? 1000 : 1e-3 },   // 9 may diverge
        ["schedule"] = new JsonObject { ["max_steps"] = random.Next(2, 30), ["batch_size"] = 4, ["max_grad_norm"] = kind == 9 ? null : 1.0 },
        ["checkpoints"] = new JsonObject { ["every_steps"] = random.Next(2, 8) },
        ["spectra"] = new JsonObject { ["enabled"] = kind < 3 },
        ["seed"] = random.Next(1000),
    };
    Count("submitted");
    return (string)(await Send("/v1/jobs", spec))["id"]!;
}

async Task<List<string>> StillOpen(List<string> jobs)
{
    var left = new List<string>();
    foreach (var job in jobs)
    {
        var status = (string)(await Read(await http.GetAsync($"/v1/jobs/{job}")))["status"]!;
        if (status is "succeeded" or "failed" or "cancelled")
        {
            Count($"ended {status}");
            if (status == "succeeded")
            {
                var artifacts = await Read(await http.GetAsync($"/v1/jobs/{job}/artifacts"));
                Count("artifacts listed", artifacts["data"]!.AsArray().Count);
            }
        }
        else
        {
            left.Add(job);
        }
    }

    return left;
}

// What clients do meanwhile: look, pause, resume, cancel, follow events and hang up, upload and delete.
async Task Act()
{
    if (open.Count == 0)
    {
        return;
    }

    var job = open[random.Next(open.Count)];
    switch (random.Next(24))
    {
        case 0:
            await Try(() => http.PostAsync($"/v1/jobs/{job}/cancel", null));
            Count("asked to cancel");
            break;
        case 1 or 2:
            await Try(() => http.PostAsync($"/v1/jobs/{job}/pause", null));
            Count("asked to pause");
            break;
        case 3 or 4 or 5 or 6:
            await Try(() => http.PostAsync($"/v1/jobs/{job}/resume", null));
            break;
        case 7 or 8:
            await Follow(job);
            break;
        case 9:
            var id = await Upload();
            (await http.DeleteAsync($"/v1/files/{id}")).Dispose();
            Count("files uploaded and deleted");
            break;
        case 10:
            await Try(() => http.PostAsJsonAsync("/v1/jobs", new JsonObject { ["model"] = "none", ["data"] = new JsonObject { ["train"] = 7 } }));
            Count("refused requests");
            break;
        default:
            await Try(() => http.GetAsync($"/v1/jobs/{job}/metrics"));
            await Try(() => http.GetAsync("/v1/fine_tuning/jobs?limit=20"));
            break;
    }
}

async Task Follow(string job)
{
    using var request = new HttpRequestMessage(HttpMethod.Get, $"/v1/jobs/{job}/events");
    request.Headers.Accept.ParseAdd("text/event-stream");
    using var answer = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
    await using var body = await answer.Content.ReadAsStreamAsync();
    using var some = new CancellationTokenSource(1500);
    var buffer = new byte[4096];
    try
    {
        while (await body.ReadAsync(buffer, some.Token) > 0)
        {
        }
    }
    catch (OperationCanceledException)
    {
        Count("event streams hung up");
    }
}

async Task<string> Upload()
{
    using var form = new MultipartFormDataContent
    {
        { new StringContent("fine-tune"), "purpose" },
        { new ByteArrayContent(await File.ReadAllBytesAsync(Path.Combine(root, "samples", "data", "train.jsonl"))), "file", "train.jsonl" },
    };
    return (string)(await Read(await http.PostAsync("/v1/files", form)))["id"]!;
}

async Task<JsonNode> Send(string path, JsonNode body) => await Read(await http.PostAsJsonAsync(path, body));

// A refusal (a job that has just ended cannot be paused) is an answer as well; a 5xx is not.
async Task Try(Func<Task<HttpResponseMessage>> call)
{
    using var answer = await call();
    if ((int)answer.StatusCode >= 500)
    {
        Count($"answers {(int)answer.StatusCode}");
        Console.WriteLine(await answer.Content.ReadAsStringAsync());
    }
}

async Task<JsonNode> Read(HttpResponseMessage response)
{
    using (response)
    {
        var text = await response.Content.ReadAsStringAsync();
        return response.IsSuccessStatusCode
            ? JsonNode.Parse(text)!
            : throw new InvalidOperationException($"{response.RequestMessage!.RequestUri} answered {(int)response.StatusCode}: {text}");
    }
}

void Count(string what, int by = 1) => counts.AddOrUpdate(what, by, (_, old) => old + by);

Sample Take() => new(
    clock.Elapsed.TotalMinutes, Reading.Of(api.Id), Reading.Of(kept.Id), ChildrenOf(kept.Id).Count,
    Entries(temporary), Entries(Path.Combine(folder, "work", "jobs")) + Entries(Path.Combine(folder, "work-killed", "jobs")),
    counts.Where(pair => pair.Key.StartsWith("ended")).Sum(pair => pair.Value));

static int Entries(string path) => Directory.Exists(path) ? Directory.EnumerateFileSystemEntries(path).Count() : 0;

static double Median(IEnumerable<double> values)
{
    var sorted = values.Order().ToArray();
    return sorted.Length == 0 ? 0 : sorted[sorted.Length / 2];
}

static List<int> ChildrenOf(int process)
{
    var children = new List<int>();
    foreach (var task in Directory.EnumerateDirectories($"/proc/{process}/task"))
    {
        try
        {
            children.AddRange(File.ReadAllText(Path.Combine(task, "children")).Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse));
        }
        catch (IOException)
        {
            // The thread ended while it was looked at.
        }
    }

    return children;
}

/// <summary>What one process holds.</summary>
internal sealed record Reading(int Handles, int Threads, double ResidentMegabytes)
{
    public static Reading Of(int process)
    {
        var status = File.ReadAllLines($"/proc/{process}/status")
            .Select(line => line.Split(':', 2)).Where(parts => parts.Length == 2).ToDictionary(parts => parts[0], parts => parts[1].Trim());
        return new(
            Directory.EnumerateFileSystemEntries($"/proc/{process}/fd").Count(),
            int.Parse(status["Threads"]),
            double.Parse(status["VmRSS"].Split(' ')[0]) / 1024);
    }
}

/// <summary>All counts of one moment.</summary>
internal sealed record Sample(double Minute, Reading Api, Reading Worker, int Children, int TemporaryFiles, int WorkFolders, int JobsEnded)
{
    public const string Header =
        "minute,api_handles,api_threads,api_rss_mb,worker_handles,worker_threads,worker_rss_mb,training_processes,temporary_files,work_folders,jobs_ended";

    /// <summary>What must stay level: name, figure, factor and slack that the last sixth may have over the second.</summary>
    public static readonly (string Name, Func<Sample, double> Value, double Factor, double Slack)[] Watched =
    [
        ("API handles", s => s.Api.Handles, 1.1, 10),
        ("API threads", s => s.Api.Threads, 1.1, 5),
        ("API memory, MB", s => s.Api.ResidentMegabytes, 1.15, 20),
        ("worker handles", s => s.Worker.Handles, 1.1, 10),
        ("worker threads", s => s.Worker.Threads, 1.1, 5),
        ("worker memory, MB", s => s.Worker.ResidentMegabytes, 1.15, 20),
        ("temporary files", s => s.TemporaryFiles, 1, 5),
        ("work folders", s => s.WorkFolders, 1, 3),
    ];

    public string Line => string.Create(
        CultureInfo.InvariantCulture,
        $"{Minute:F1},{Api.Handles},{Api.Threads},{Api.ResidentMegabytes:F0},{Worker.Handles},{Worker.Threads},{Worker.ResidentMegabytes:F0},{Children},{TemporaryFiles},{WorkFolders},{JobsEnded}");
}

/// <summary>The courses of the figures, each scaled to its own largest value.</summary>
internal static class Drawing
{
    private static readonly string[] Colours = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b"];

    public static void Write(string path, IReadOnlyList<Sample> samples)
    {
        const int width = 640, height = 90, left = 170;
        var charts = Sample.Watched.Take(6).ToArray();
        var svg = new StringBuilder();
        svg.AppendLine($"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {(charts.Length * height) + 30}" font-family="sans-serif" font-size="12">""");
        svg.AppendLine("""<rect width="100%" height="100%" fill="white"/>""");
        var last = Math.Max(samples[^1].Minute, 1e-9);
        for (var i = 0; i < charts.Length; i++)
        {
            var values = samples.Select(charts[i].Value).ToArray();
            var top = Math.Max(values.Max(), 1);
            var y = (i * height) + 10;
            var points = samples.Select((s, n) => FormattableString.Invariant(
                $"{left + (s.Minute / last * width):F1},{y + height - 20 - (values[n] / top * (height - 25)):F1}"));
            svg.AppendLine($"""<text x="10" y="{y + 30}">{charts[i].Name}</text><text x="10" y="{y + 46}" fill="#666">0 to {top:F0}</text>""");
            svg.AppendLine($"""<line x1="{left}" y1="{y + height - 20}" x2="{left + width}" y2="{y + height - 20}" stroke="#ccc"/>""");
            svg.AppendLine($"""<polyline fill="none" stroke="{Colours[i]}" stroke-width="1.5" points="{string.Join(' ', points)}"/>""");
        }

        svg.AppendLine(FormattableString.Invariant($"""<text x="{left}" y="{(charts.Length * height) + 20}" fill="#666">0 to {last:F0} minutes, {samples[^1].JobsEnded} jobs</text>"""));
        svg.AppendLine("</svg>");
        File.WriteAllText(path, svg.ToString());
    }
}

internal static partial class Native
{
    [DllImport("libc", EntryPoint = "kill")]
    public static extern int Kill(int process, int signal);
}
