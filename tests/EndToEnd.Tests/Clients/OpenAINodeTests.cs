using System.Diagnostics;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Clients;

/// <summary>The official OpenAI Node package against the service; the script is <c>openai-node/contract.test.mjs</c>.</summary>
public abstract class OpenAINodeTests(RunningService service)
{
    [Fact]
    public async Task The_node_package_does_its_whole_round()
    {
        var folder = Path.Combine(Repository.Root, "tests", "EndToEnd.Tests", "openai-node");
        Assert.True(
            Directory.Exists(Path.Combine(folder, "node_modules", "openai")),
            $"The openai package is missing: run `npm ci` in {folder}, or scripts/test.sh.");

        var start = new ProcessStartInfo("node") { WorkingDirectory = folder, RedirectStandardOutput = true, RedirectStandardError = true };
        start.ArgumentList.Add("--test");
        start.ArgumentList.Add("contract.test.mjs");
        start.Environment["BASE_URL"] = $"{service.Url}/v1";
        start.Environment["MODEL"] = service.SampleModel;
        start.Environment["TRAIN"] = SmallTrainingFile.Path;
        using var process = Process.Start(start)!;
        var error = process.StandardError.ReadToEndAsync();
        var output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();

        Assert.True(process.ExitCode == 0, $"{output}\n{await error}\n{service.Logs}");
    }
}

public sealed class OpenAINodeOnEmbeddedTests(EmbeddedService service) : OpenAINodeTests(service), IClassFixture<EmbeddedService>;

public sealed class OpenAINodeOnProductionTests(ProductionService service) : OpenAINodeTests(service), IClassFixture<ProductionService>;
