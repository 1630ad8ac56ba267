// Time from submitting a job to its first training step, on a running service: the median of five jobs of two steps each.
//
//   dotnet run bench/submit-to-first-step.cs -- SERVICE_URL
//
// bench/run.sh builds and starts the service and calls this.
#:property PublishAot=false
#:property JsonSerializerIsReflectionEnabledByDefault=true

using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Text.Json.Nodes;

const int Runs = 5;
var samples = Path.Combine(Directory.GetCurrentDirectory(), "samples");
using var http = new HttpClient { BaseAddress = new Uri(args[0]) };

var model = (string)(await Read(await http.PostAsJsonAsync("/v1/models", new { name = $"bench-{Environment.ProcessId}", path = Path.Combine(samples, "model") })))["id"]!;
using var form = new MultipartFormDataContent
{
    { new StringContent("fine-tune"), "purpose" },
    { new ByteArrayContent(await File.ReadAllBytesAsync(Path.Combine(samples, "data", "train.jsonl"))), "file", "train.jsonl" },
};
var file = (string)(await Read(await http.PostAsync("/v1/files", form)))["id"]!;

var seconds = new List<double>();
for (var run = 0; run < Runs; run++)
{
    var spec = new JsonObject
    {
        ["model"] = model,
        ["data"] = new JsonObject { ["train"] = file, ["max_length"] = 256 },
        ["schedule"] = new JsonObject { ["max_steps"] = 2, ["batch_size"] = 8 },
        ["spectra"] = new JsonObject { ["enabled"] = false },
    };
    var clock = Stopwatch.StartNew();
    var job = (string)(await Read(await http.PostAsJsonAsync("/v1/jobs", spec)))["id"]!;
    JsonNode state;
    double? first = null;
    do
    {
        await Task.Delay(10);
        state = await Read(await http.GetAsync($"/v1/jobs/{job}"));
        if (first is null && (int?)state["progress"]?["step"] >= 1)
        {
            first = clock.Elapsed.TotalSeconds;
        }
    }
    while ((string)state["status"]! is not ("succeeded" or "failed" or "cancelled"));

    if ((string)state["status"]! != "succeeded")
    {
        throw new InvalidOperationException(state.ToJsonString());
    }

    seconds.Add(first ?? clock.Elapsed.TotalSeconds);
    Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"run {run + 1}: {seconds[^1]:F2} s"));
}

seconds.Sort();
Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"submit to first step, median of {Runs}: {seconds[Runs / 2]:F2} s (reach: 4 s)"));
Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $$"""{"name":"submit to first step","value":{{seconds[Runs / 2]}},"unit":"s","conditions":"embedded profile, sample model, median of {{Runs}}"}"""));
return seconds[Runs / 2] <= 4 ? 0 : 1;

static async Task<JsonNode> Read(HttpResponseMessage response)
{
    var body = await response.Content.ReadAsStringAsync();
    return response.IsSuccessStatusCode
        ? JsonNode.Parse(body)!
        : throw new InvalidOperationException($"{response.RequestMessage!.RequestUri} answered {(int)response.StatusCode}: {body}");
}
