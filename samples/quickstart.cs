// The first job, through the HTTP API: registers the sample base model, uploads the sample data, trains a LoRA adapter with a
// progress bar, and prints what it taught the model. Called by scripts/quickstart.sh, which has built and started the service.
//
//   dotnet run samples/quickstart.cs -- SERVICE_URL WORKER_DLL OUTPUT_FOLDER
#:property PublishAot=false
#:property JsonSerializerIsReflectionEnabledByDefault=true

using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Text.Json.Nodes;

if (args is not [var url, var worker, var output])
{
    Console.Error.WriteLine("usage: dotnet run samples/quickstart.cs -- SERVICE_URL WORKER_DLL OUTPUT_FOLDER");
    return 2;
}

var samples = Path.Combine(Directory.GetCurrentDirectory(), "samples");
using var service = new Service(url);

Console.WriteLine("Registering the base model samples/model …");
var model = await service.RegisterModel("sample", Path.Combine(samples, "model"));
Console.WriteLine($"  {model}");

Console.WriteLine("Uploading samples/data …");
var train = await service.Upload(Path.Combine(samples, "data", "train.jsonl"));
var validation = await service.Upload(Path.Combine(samples, "data", "validation.jsonl"));
Console.WriteLine($"  {train} (training), {validation} (held out)");

var spec = JsonNode.Parse(File.ReadAllText(Path.Combine(samples, "lora.json")))!;
spec["model"] = model;
spec["data"]!["train"] = train;
spec["data"]!["validation"] = validation;
var job = await service.Submit(spec);
Console.WriteLine($"Training {job} …");
var finished = await Progress.Follow(service, job);
if (finished["status"]!.GetValue<string>() != "succeeded")
{
    Console.Error.WriteLine($"The job ended as {finished["status"]}: {finished["error"]?["message"]}");
    return 1;
}

var artifacts = Path.Combine(output, job);
var files = await service.DownloadArtifacts(job, artifacts);
var losses = await service.HeldOutLosses(job);

Console.WriteLine("Asking base model and fine-tuned model about the held-out messages …");
var expected = HeldOut.Read(Path.Combine(samples, "data", "validation.jsonl"));
var before = await HeldOut.ExactMatch(worker, Path.Combine(samples, "model"), adapter: null, expected, output);
var after = await HeldOut.ExactMatch(worker, Path.Combine(samples, "model"), Path.Combine(artifacts, "adapter"), expected, output);

Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"""

    held-out loss   {losses.Before,8:F3}  →  {losses.After,8:F3}   (nats per token)
    exact match     {before,8:P1}  →  {after,8:P1}   ({expected.Count} messages)

    artifacts  {artifacts}  ({files} files: adapter, metrics, spectra)
    API        {url}/swagger
    dashboard  {url}/
    the job    {url}/v1/jobs/{job}
    """));
return before < 0.1 && after > 0.8 ? 0 : Fail("The adapter did not learn the task: exact match should rise from below 10 % to above 80 %.");

static int Fail(string message)
{
    Console.Error.WriteLine(message);
    return 1;
}

/// <summary>The calls of the service that the first job needs.</summary>
internal sealed class Service(string url) : IDisposable
{
    private readonly HttpClient _http = new() { BaseAddress = new Uri(url), Timeout = TimeSpan.FromMinutes(2) };

    public async Task<string> RegisterModel(string name, string path)
    {
        // A second run on the same data folder finds the model registered.
        var known = await Get("/v1/models");
        var existing = known["data"]!.AsArray().FirstOrDefault(entry => (string?)entry!["name"] == name);
        return (string?)existing?["id"]
            ?? (string)(await Post("/v1/models", JsonContent.Create(new { name, path })))["id"]!;
    }

    public async Task<string> Upload(string path)
    {
        using var form = new MultipartFormDataContent
        {
            { new StringContent("fine-tune"), "purpose" },
            { new ByteArrayContent(await File.ReadAllBytesAsync(path)), "file", Path.GetFileName(path) },
        };
        return (string)(await Post("/v1/files", form))["id"]!;
    }

    public async Task<string> Submit(JsonNode spec) => (string)(await Post("/v1/jobs", JsonContent.Create(spec)))["id"]!;

    public Task<JsonNode> Read(string job) => Get($"/v1/jobs/{job}");

    /// <summary>Held-out loss before the first step and after the last one.</summary>
    public async Task<(double Before, double After)> HeldOutLosses(string job)
    {
        var metrics = await Get($"/v1/jobs/{job}/metrics?keys=eval/loss");
        var losses = metrics["columns"]!["eval/loss"]!.AsArray().Where(value => value is not null).Select(value => (double)value!).ToList();
        return (losses[0], losses[^1]);
    }

    public async Task<int> DownloadArtifacts(string job, string folder)
    {
        var list = (await Get($"/v1/jobs/{job}/artifacts"))["data"]!.AsArray();
        foreach (var artifact in list)
        {
            var path = (string)artifact!["path"]!;
            var target = Path.Combine(folder, path);
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            await using var content = await _http.GetStreamAsync($"/v1/jobs/{job}/artifacts/{path}");
            await using var file = File.Create(target);
            await content.CopyToAsync(file);
        }

        return list.Count;
    }

    public void Dispose() => _http.Dispose();

    private async Task<JsonNode> Get(string path) => await Read(await _http.GetAsync(path));

    private async Task<JsonNode> Post(string path, HttpContent body) => await Read(await _http.PostAsync(path, body));

    private static async Task<JsonNode> Read(HttpResponseMessage response)
    {
        var body = await response.Content.ReadAsStringAsync();
        return response.IsSuccessStatusCode
            ? JsonNode.Parse(body)!
            : throw new InvalidOperationException($"{response.RequestMessage!.RequestUri} answered {(int)response.StatusCode}: {body}");
    }
}

/// <summary>A bar on a terminal, a line every few seconds elsewhere.</summary>
internal static class Progress
{
    public static async Task<JsonNode> Follow(Service service, string job)
    {
        var sinceLine = Stopwatch.StartNew();
        while (true)
        {
            var state = await service.Read(job);
            var status = (string)state["status"]!;
            var ended = status is "succeeded" or "failed" or "cancelled";
            var step = (int?)state["progress"]?["step"] ?? 0;
            var total = (int?)state["progress"]?["total_steps"] ?? 0;
            var share = total > 0 ? (double)step / total : 0;
            var line = string.Create(CultureInfo.InvariantCulture,
                $"  [{new string('█', (int)(share * 40)),-40}] {share,4:P0}  step {step}/{total}  {(string?)state["phase"] ?? status}");
            if (!Console.IsOutputRedirected)
            {
                Console.Write($"\r{line,-100}");
            }
            else if (ended || sinceLine.Elapsed > TimeSpan.FromSeconds(3))
            {
                Console.WriteLine(line);
                sinceLine.Restart();
            }

            if (ended)
            {
                Console.WriteLine();
                return state;
            }

            await Task.Delay(200);
        }
    }
}

/// <summary>What a model answers to the held-out messages.</summary>
internal static class HeldOut
{
    public static IReadOnlyList<(string Prompt, string Completion)> Read(string path) =>
        [.. File.ReadLines(path).Select(line => JsonNode.Parse(line)!).Select(row => ((string)row["prompt"]!, (string)row["completion"]!))];

    /// <summary>Share of the rows that greedy decoding completes to the letter.</summary>
    public static async Task<double> ExactMatch(
        string worker, string model, string? adapter, IReadOnlyList<(string Prompt, string Completion)> rows, string folder)
    {
        var prompts = Path.Combine(folder, "prompts.jsonl");
        var answers = Path.Combine(folder, adapter is null ? "answers-base.jsonl" : "answers-tuned.jsonl");
        await File.WriteAllLinesAsync(prompts, rows.Select(row => new JsonObject { ["prompt"] = row.Prompt }.ToJsonString()));

        var start = new ProcessStartInfo("dotnet") { RedirectStandardError = true, RedirectStandardOutput = true };
        foreach (var word in new[] { worker, "generate", "--model", model, "--prompts", prompts, "--out", answers, "--max-new-tokens", "64" })
        {
            start.ArgumentList.Add(word);
        }

        if (adapter is not null)
        {
            start.ArgumentList.Add("--adapter");
            start.ArgumentList.Add(adapter);
        }

        using var process = Process.Start(start)!;
        var error = process.StandardError.ReadToEndAsync();
        await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        if (process.ExitCode != 0)
        {
            throw new InvalidOperationException($"generate ended with exit code {process.ExitCode}: {await error}");
        }

        var completions = File.ReadLines(answers).Select(line => (string)JsonNode.Parse(line)!["completion"]!).ToList();
        return rows.Zip(completions).Count(pair => pair.First.Completion.Trim() == pair.Second.Trim()) / (double)rows.Count;
    }
}
