// A data set of any size: written, validated, tokenised and trained on for ten steps, with times and memory.
//
//   dotnet run bench/large-data.cs -- generate FILE MEGABYTES
//   dotnet run bench/large-data.cs -- validate FILE
//   dotnet run bench/large-data.cs -- train WORKER_DLL FOLDER FILE      prints every phase, and the peak of resident memory
//
// bench/large-data.sh calls these.
#:project ../src/Training/Training.csproj
#:property PublishAot=false
#:property JsonSerializerIsReflectionEnabledByDefault=true

using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using TrainingService.Training.Data;

CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
switch (args)
{
    case ["generate", var file, var megabytes]:
        Generate(file, long.Parse(megabytes) * 1_000_000);
        break;
    case ["validate", var file]:
        Validate(file);
        break;
    case ["train", var worker, var folder, var file]:
        return Train(worker, folder, file);
    default:
        throw new ArgumentException("generate FILE MEGABYTES, validate FILE, or train WORKER_DLL FOLDER FILE");
}

return 0;

// Rows of a question and an answer, some 500 bytes each, from 4096 made-up words: frequent ones are short, as in a language.
static void Generate(string path, long bytes)
{
    const int seed = 1;
    string[] syllables = ["ba", "den", "ki", "lo", "mar", "ne", "os", "pra", "qui", "ru", "sel", "tor", "un", "ve", "wy", "zan"];
    var words = Enumerable.Range(0, 4096).Select(i => string.Concat(
        Enumerable.Range(0, i < 64 ? 1 : i < 512 ? 2 : 3).Select(place => syllables[(i >> (4 * place)) & 15]))).ToArray();
    var state = (ulong)seed;
    int Next(int below)
    {
        state = (state * 6364136223846793005) + 1442695040888963407;
        return (int)((state >> 33) % (ulong)below);
    }

    using var output = new StreamWriter(path, append: false, new UTF8Encoding(false), 1 << 20) { NewLine = "\n" };
    var written = 0L;
    var line = new StringBuilder();
    for (var row = 0; written < bytes; row++)
    {
        line.Clear().Append("{\"prompt\": \"");
        Sentence(8 + Next(16));
        line.Append("\\n\", \"completion\": \"");
        for (var sentences = 1 + Next(8); sentences > 0; sentences--)
        {
            Sentence(6 + Next(12));
        }

        line.Append("\", \"id\": ").Append(row).Append('}');
        output.WriteLine(line.ToString());
        written += line.Length + 1;
    }

    void Sentence(int count)
    {
        for (var i = 0; i < count; i++)
        {
            line.Append(i == 0 ? "" : " ").Append(words[Next(2) == 0 ? Next(64) : Next(4096)]);
        }

        line.Append(". ");
    }
}

static void Validate(string path)
{
    var before = Status(Environment.ProcessId, "VmRSS:");
    var clock = Stopwatch.StartNew();
    var report = DataSets.Validate(path);
    var seconds = clock.Elapsed.TotalSeconds;
    var growth = Status(Environment.ProcessId, "VmHWM:") - before;
    var megabytes = new FileInfo(path).Length / 1e6;
    Console.WriteLine($"validated: {report.Train.Rows} rows, {report.ErrorCount} errors, {report.Train.Duplicates} duplicates, "
        + $"{seconds:F1} s, {megabytes / seconds:F0} MB/s, memory grew by {growth / 1e6:F0} MB");
}

static int Train(string worker, string folder, string path)
{
    var spec = Path.Combine(folder, "spec.json");
    File.WriteAllText(spec, new JsonObject
    {
        ["model"] = Path.GetFullPath("samples/model"),
        ["data"] = new JsonObject { ["train"] = Path.GetFullPath(path), ["max_length"] = 256 },
        ["schedule"] = new JsonObject { ["max_steps"] = 10, ["batch_size"] = 8 },
        ["spectra"] = new JsonObject { ["enabled"] = false },
    }.ToJsonString());
    var work = Path.Combine(folder, "work");
    if (Directory.Exists(work))
    {
        Directory.Delete(work, recursive: true);
    }

    var start = new ProcessStartInfo("dotnet", [worker, "train", "--spec", spec, "--work", work, "--cache", Path.Combine(folder, "cache")])
    {
        RedirectStandardOutput = true,
    };
    var clock = Stopwatch.StartNew();
    using var process = Process.Start(start)!;
    var (peak, phase, begun, step) = (0L, "starting", 0.0, 0);
    using var timer = new Timer(_ => peak = Math.Max(peak, Status(process.Id, "VmHWM:")), null, 0, 50);
    while (process.StandardOutput.ReadLine() is { } line)
    {
        var report = JsonNode.Parse(line)!;
        switch ((string)report["type"]!)
        {
            case "phase":
                Console.WriteLine($"  {clock.Elapsed.TotalSeconds,7:F1} s  {phase} took {clock.Elapsed.TotalSeconds - begun:F1} s, peak {peak / 1e6:F0} MB");
                (phase, begun) = ((string)report["phase"]!, clock.Elapsed.TotalSeconds);
                break;
            case "progress":
                Console.Write($"\r  {(double)report["done"]! / 1e6:F0} of {(double)report["total"]! / 1e6:F0} MB \r");
                break;
            case "step":
                step = (int)report["step"]!;
                break;
            case "failed":
                Console.WriteLine(line);
                break;
        }
    }

    process.WaitForExit();
    Console.WriteLine($"  {clock.Elapsed.TotalSeconds,7:F1} s  {step} steps, exit code {process.ExitCode}");
    Console.WriteLine($"peak_mb {peak / 1e6:F0}");
    return process.ExitCode;
}

// A figure of /proc/PID/status, bytes; 0 once the process has ended.
static long Status(int process, string name)
{
    try
    {
        var line = File.ReadLines($"/proc/{process}/status").First(line => line.StartsWith(name, StringComparison.Ordinal));
        return long.Parse(line.AsSpan(name.Length, line.Length - name.Length - " kB".Length), NumberStyles.AllowLeadingWhite) * 1024;
    }
    catch (Exception ended) when (ended is IOException or InvalidOperationException)
    {
        return 0;
    }
}
