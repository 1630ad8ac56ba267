using System.ComponentModel;
using System.Text.Json;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;
using TrainingService.Api.Files;
using TrainingService.Api.Http;
using TrainingService.Api.Models;
using TrainingService.Infrastructure;
using TrainingService.Training;
using TrainingService.Training.Objectives;

namespace TrainingService.Api.Jobs;

/// <summary>What a job would take, before it is created.</summary>
internal sealed record EstimateResponse(
    [property: Description("Numbers that train; exact.")] long TrainableParameters,
    [property: Description("Numbers in the model, the adapter's included; exact.")] long TotalParameters,
    double TrainableShare,
    [property: Description("Peak memory, estimated.")] MemoryEstimate Memory,
    [property: Description("Size of the saved adapter or model, estimated.")] long ArtifactBytes,
    [property: Description("Optimizer steps; null when neither max_steps nor the data decides.")] long? Steps,
    bool StepsAreExact,
    [property: Description("Rows of the training file; null when the file is too large to count for an estimate.")] long? Rows,
    [property: Description("Tokens of the training file; null when it was not counted.")] long? Tokens)
{
    public string Object { get; } = "job.estimate";

    public static EstimateResponse From(Estimate estimate, DataSize size) => new(
        estimate.TrainableParameters, estimate.TotalParameters, estimate.TrainableShare, estimate.Memory, estimate.ArtifactBytes,
        estimate.Steps, estimate.StepsAreExact, size.Rows, size.Tokens);
}

internal static class JobEstimate
{
    /// <summary>Larger files take longer to count than anybody waits for an estimate.</summary>
    private const long LargestCountedBytes = 64 << 20;

    public static async Task<Results<Ok<EstimateResponse>, ErrorResult>> Estimate(
        JsonElement body, Caller caller, AppDbContext db, ModelRegistration registration, FileReader reader, IOptions<JobOptions> options,
        CancellationToken cancellationToken)
    {
        var resolved = await SpecReferences.ResolveAsync(db, registration, options.Value, caller, body, cancellationToken);
        if (resolved is not { Spec: { } spec, Model: { } model, Config: { } config, Train: { } train })
        {
            return ErrorResult.Invalid([.. JobSubmission.Details(resolved.Errors, path => path)]);
        }

        var size = new DataSize();
        if (train.Bytes <= LargestCountedBytes)
        {
            var report = await reader.ReportAsync(train, model, spec.Data, spec.Objective is PretrainingConfig, cancellationToken);
            size = report.IsComplete ? new DataSize(report.Train.UsedRows, report.Train.Tokens?.Total) : size;
        }

        return TypedResults.Ok(EstimateResponse.From(Training.Estimate.For(spec, config, size), size));
    }
}
