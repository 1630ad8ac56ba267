using System.Buffers.Binary;
using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.EndToEnd.Tests.Running;
using TrainingService.Training.Models;

namespace TrainingService.EndToEnd.Tests;

/// <summary>What leaves the checkout: published folders, which hold the native library where it is needed and only there.</summary>
public sealed class PublishTests : IDisposable
{
    private const string Config = """
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 16,
         "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
         "hidden_act": "silu", "tie_word_embeddings": false}
        """;

    private readonly string _folder = Directory.CreateTempSubdirectory("publish-").FullName;

    [Theory]
    [InlineData("Worker", "")]
    [InlineData("Api", "worker")]
    public void A_published_worker_finds_its_native_library(string project, string home)
    {
        var published = Publish(project);

        // As the service starts it: from another folder, and with no variable that points at a library.
        var logits = Path.Combine(_folder, "logits.safetensors");
        var (exit, output) = Run(
            Path.Combine(published, home, "TrainingService.Worker.dll"),
            "logits", "--model", TinyModel(), "--tokens", File("tokens.json", "[[1, 5, 9], [2, 6, 10]]"), "--out", logits);

        Assert.True(exit == 0, output);
        Assert.Equal([2, 3, 11], Header(logits)["logits"]!["shape"]!.AsArray().Select(size => (int)size!));
    }

    [Fact]
    public void A_published_service_holds_the_worker_in_a_folder_of_its_own_and_libtorch_only_there()
    {
        var published = Publish("Api");

        Assert.True(System.IO.File.Exists(Path.Combine(published, "TrainingService.Api.dll")));
        Assert.True(System.IO.File.Exists(Path.Combine(published, "wwwroot", "index.html")));
        Assert.True(System.IO.File.Exists(Path.Combine(published, "worker", "TrainingService.Worker.runtimeconfig.json")));
        var libraries = Directory.GetFiles(published, "libtorch_cpu*", SearchOption.AllDirectories);
        Assert.NotEmpty(libraries);
        Assert.All(libraries, library => Assert.StartsWith(Path.Combine(published, "worker") + Path.DirectorySeparatorChar, library));
    }

    [Theory]
    [InlineData("false", "TorchSharp-cpu")]
    [InlineData("true", "TorchSharp-cuda-linux")]
    public void UseCuda_swaps_the_native_package_and_nothing_else(string useCuda, string native)
    {
        var (exit, output) = Run("msbuild", Path.Combine(Repository.Root, "src", "Worker"), "-getItem:PackageReference", $"-p:UseCuda={useCuda}");

        Assert.True(exit == 0, output);
        var packages = JsonNode.Parse(output)!["Items"]!["PackageReference"]!.AsArray().Select(item => (string)item!["Identity"]!).ToArray();
        Assert.Equal([native], packages.Where(package => package.StartsWith("TorchSharp-", StringComparison.Ordinal)));
        Assert.Contains("System.CommandLine", packages);
    }

    [Fact]
    public void The_default_package_graph_holds_no_CUDA()
    {
        using var assets = JsonDocument.Parse(System.IO.File.ReadAllBytes(
            Path.Combine(Repository.Root, "artifacts", "obj", "Worker", "project.assets.json")));
        var packages = assets.RootElement.GetProperty("libraries").EnumerateObject().Select(library => library.Name).ToArray();

        Assert.Contains(packages, package => package.StartsWith("libtorch-cpu", StringComparison.OrdinalIgnoreCase));
        Assert.DoesNotContain(packages, package => package.Contains("cuda", StringComparison.OrdinalIgnoreCase));
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>Publishes what this test host was built with; files are linked, for they are a gigabyte.</summary>
    private string Publish(string project)
    {
        var target = Path.Combine(_folder, project);
        var configuration = Path.GetFileName(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));
        var (exit, output) = Run(
            "publish", Path.Combine(Repository.Root, "src", project), "--no-build", "-c", char.ToUpperInvariant(configuration[0]) + configuration[1..],
            "-o", target, "--nologo", "-v", "quiet", "-p:CreateHardLinksForPublishFilesIfPossible=true");
        Assert.True(exit == 0, output);
        return target;
    }

    /// <summary>A Llama of 1,000 numbers; what it computes does not matter here.</summary>
    private string TinyModel()
    {
        File(Path.Combine("model", "config.json"), Config);
        var header = new JsonObject();
        var count = 0L;
        foreach (var weight in ModelConfig.Parse(Config).Weights)
        {
            var end = count + weight.Shape.Aggregate((product, size) => product * size);
            header[weight.Name] = new JsonObject
            {
                ["dtype"] = "F32",
                ["shape"] = new JsonArray([.. weight.Shape.Select(size => (JsonNode)size)]),
                ["data_offsets"] = new JsonArray(count * sizeof(float), end * sizeof(float)),
            };
            count = end;
        }

        using var file = System.IO.File.Create(Path.Combine(_folder, "model", "model.safetensors"));
        var text = JsonSerializer.SerializeToUtf8Bytes(header);
        file.Write(BitConverter.GetBytes((long)text.Length));
        file.Write(text);
        file.Write(MemoryMarshal.AsBytes<float>([.. Enumerable.Range(0, (int)count).Select(i => 0.1f * MathF.Sin(i))]));
        return Path.Combine(_folder, "model");
    }

    private string File(string name, string text)
    {
        var path = Path.Combine(_folder, name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        System.IO.File.WriteAllText(path, text);
        return path;
    }

    private static JsonNode Header(string path)
    {
        var bytes = System.IO.File.ReadAllBytes(path);
        return JsonNode.Parse(bytes.AsSpan(8, (int)BinaryPrimitives.ReadInt64LittleEndian(bytes)))!;
    }

    private (int Exit, string Output) Run(params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", arguments) { RedirectStandardOutput = true, RedirectStandardError = true, WorkingDirectory = _folder };
        start.Environment.Remove("LD_LIBRARY_PATH");
        start.Environment["MSBUILDDISABLENODEREUSE"] = "1";   // a build node that stays would outlive the test, and hold its output open
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, process.ExitCode == 0 ? output : output + errors.GetAwaiter().GetResult());
    }
}
