using System.ClientModel;
using System.ClientModel.Primitives;
using System.Text.Json.Nodes;
using OpenAI;
using OpenAI.Files;
using OpenAI.FineTuning;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Clients;

#pragma warning disable OPENAI001 // Fine-tuning is marked experimental in the package; it is what its users call.

/// <summary>The official OpenAI .NET package, unmodified, against the service.</summary>
public abstract class OpenAIDotNetTests(RunningService service)
{
    private OpenAIClient Client => new(
        new ApiKeyCredential("none"),
        new OpenAIClientOptions { Endpoint = new Uri($"{service.Url}/v1") });

    [Fact]
    public async Task A_job_runs_to_its_end_and_shows_its_events_and_checkpoints()
    {
        var cancellation = TestContext.Current.CancellationToken;
        OpenAIFile file = await Client.GetOpenAIFileClient().UploadFileAsync(SmallTrainingFile.Path, FileUploadPurpose.FineTune);
        var jobs = Client.GetFineTuningClient();

        var body = new JsonObject
        {
            ["model"] = service.SampleModel,
            ["training_file"] = file.Id,
            ["suffix"] = "dotnet",
            ["seed"] = 7,
            ["method"] = new JsonObject
            {
                ["type"] = "supervised",
                ["supervised"] = new JsonObject { ["hyperparameters"] = new JsonObject { ["n_epochs"] = 1, ["batch_size"] = 8 } },
            },
            ["adapter"] = new JsonObject { ["type"] = "lora", ["rank"] = 4 },
            ["checkpoints"] = new JsonObject { ["every_steps"] = 4, ["keep"] = 100 },
        };
        var job = await jobs.FineTuneAsync(
            BinaryContent.Create(BinaryData.FromString(body.ToJsonString())), waitUntilCompleted: false, new RequestOptions { CancellationToken = cancellation });
        Assert.StartsWith("ftjob-", job.JobId, StringComparison.Ordinal);

        await job.WaitForCompletionAsync(cancellation);
        Assert.True(job.Status == FineTuningStatus.Succeeded, $"{job.Status}\n{service.Logs}");
        Assert.StartsWith("ft:", job.Value, StringComparison.Ordinal);
        Assert.Equal(service.SampleModel, job.BaseModel);

        var events = new List<FineTuningEvent>();
        await foreach (var entry in job.GetEventsAsync(new GetEventsOptions { PageSize = 3 }))
        {
            events.Add(entry);
        }

        Assert.True(events.Count > 6, $"{events.Count} events");
        Assert.Equal(events.Count, events.Select(entry => entry.Id).Distinct().Count());

        var checkpoints = new List<FineTuningCheckpoint>();
        await foreach (var checkpoint in job.GetCheckpointsAsync(new GetCheckpointsOptions { PageSize = 2 }))
        {
            checkpoints.Add(checkpoint);
        }

        Assert.True(checkpoints.Count > 2, $"{checkpoints.Count} checkpoints");
        Assert.All(checkpoints, checkpoint => Assert.Equal(job.JobId, checkpoint.JobId));
        Assert.Contains(checkpoints, checkpoint => checkpoint.Metrics.TrainLoss > 0);
    }

    [Fact]
    public async Task Another_job_is_cancelled()
    {
        var cancellation = TestContext.Current.CancellationToken;
        OpenAIFile file = await Client.GetOpenAIFileClient().UploadFileAsync(SmallTrainingFile.Path, FileUploadPurpose.FineTune);
        var jobs = Client.GetFineTuningClient();

        var job = await jobs.FineTuneAsync(
            service.SampleModel,
            file.Id,
            waitUntilCompleted: false,
            new FineTuningOptions { TrainingMethod = FineTuningTrainingMethod.CreateSupervised(epochCount: 50) },
            cancellation);
        await job.CancelAndUpdateAsync(cancellation);
        await job.WaitForCompletionAsync(cancellation);

        Assert.Equal(FineTuningStatus.Cancelled, job.Status);
    }
}

public sealed class OpenAIDotNetOnEmbeddedTests(EmbeddedService service) : OpenAIDotNetTests(service), IClassFixture<EmbeddedService>;

public sealed class OpenAIDotNetOnProductionTests(ProductionService service) : OpenAIDotNetTests(service), IClassFixture<ProductionService>;
