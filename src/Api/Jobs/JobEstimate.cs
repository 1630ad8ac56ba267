using System.ComponentModel;
using System.Text.Json;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;
using TrainingService.Api.Files;
using TrainingService.Api.Http;
using TrainingService.Api.Models;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Training;
using TrainingService.Training.Throughput;

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
    [property: Description("Tokens of the training file; null when it was not counted.")] long? Tokens,
    [property: Description("Where it would run, as the newest run did: cpu or cuda.")] string Device,
    [property: Description("Number format that precision stands for there.")] Precision Precision,
    [property: Description("Seconds of one optimizer step, learnt from runs alike that have ended here; null when there are none.")] double? SecondsPerStep,
    [property: Description("Seconds from the start of the job to its end, in the same way; null when the steps are not known either.")] double? Seconds)
{
    public string Object { get; } = "job.estimate";

    public static EstimateResponse From(Estimate estimate, DataSize size, RunCost cost) => new(
        estimate.TrainableParameters, estimate.TotalParameters, estimate.TrainableShare, estimate.Memory, estimate.ArtifactBytes,
        estimate.Steps, estimate.StepsAreExact, size.Rows, size.Tokens, cost.Device, cost.Precision, cost.SecondsPerStep, cost.Seconds);
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
            var report = await reader.ReportAsync(train, model, spec.DataForAdapter(), spec.RowUse(), cancellationToken);
            size = report.IsComplete ? new DataSize(report.Train.UsedRows, report.Train.Tokens?.Total) : size;
        }

        var pace = Pace.Read(await PastRuns.ReadAsync(db, cancellationToken));
        var estimate = Training.Estimate.For(spec, config, size, pace.OnGpu);
        int? steps = estimate.Steps is { } number ? (int)Math.Min(number, int.MaxValue) : null;
        return TypedResults.Ok(EstimateResponse.From(estimate, size, pace.Timed(estimate.CostOf(spec, pace.OnGpu, steps))));
    }
}
