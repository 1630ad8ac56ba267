using System.ComponentModel;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using TrainingService.Api.Http;
using TrainingService.Api.Models;
using TrainingService.Domain.Models;
using TrainingService.Infrastructure;
using TrainingService.Training.Data;

namespace TrainingService.Api.Files;

/// <summary>How the rows of a file are to be read: the members of a spec's <c>data</c> that matter, and the model.</summary>
internal sealed record CheckFileRequest
{
    [Description("Base model whose tokenizer counts, by id or name; null: only the structure of the rows is checked.")]
    public string? Model { get; init; }

    [Description("Layout of the rows; auto: decided by the column names.")]
    public DataFormat Format { get; init; } = DataFormat.Auto;

    [Description("Renames columns before the layout is decided.")]
    public IReadOnlyDictionary<string, string> Columns { get; init; } = new Dictionary<string, string>();

    [Description("Longest sequence in tokens.")]
    public int MaxLength { get; init; } = 1024;

    [Description("Whether prompts carry loss too.")]
    public bool TrainOnPrompt { get; init; }

    [Description("What the rows are for: answers (objective sft), text (pretraining), pairs (reward and dpo), verdicts (kto), scores (an answer and a number).")]
    public RowUse Use { get; init; }
}

internal sealed record FileReportResponse(string FileId, bool IsUsable, DataReport Report)
{
    public string Object { get; } = "file.report";
}

internal sealed record FilePreviewResponse(string FileId, string? Layout, IReadOnlyList<RowPreview> Data)
{
    public string Object { get; } = "file.preview";
}

internal static class FileChecks
{
    public static async Task<Results<Ok<FileReportResponse>, ErrorResult>> Validate(
        string id, CheckFileRequest? body, Caller caller, AppDbContext db, FileReader reader, CancellationToken cancellationToken)
    {
        var (report, refusal) = await ReportAsync(id, body ?? new CheckFileRequest(), caller, db, reader, cancellationToken);
        return report is null ? refusal! : TypedResults.Ok(new FileReportResponse(id, report.IsUsable, report));
    }

    public static async Task<Results<Ok<FilePreviewResponse>, ErrorResult>> Preview(
        string id, CheckFileRequest? body, Caller caller, AppDbContext db, FileReader reader, CancellationToken cancellationToken)
    {
        var (report, refusal) = await ReportAsync(id, body ?? new CheckFileRequest(), caller, db, reader, cancellationToken);
        return report is null ? refusal! : TypedResults.Ok(new FilePreviewResponse(id, report.Train.Layout, report.Preview));
    }

    private static async Task<(DataReport? Report, ErrorResult? Refusal)> ReportAsync(
        string id, CheckFileRequest request, Caller caller, AppDbContext db, FileReader reader, CancellationToken cancellationToken)
    {
        if (request.MaxLength is < 2 or > 1_048_576)
        {
            return (null, ErrorResult.Invalid("out_of_range", $"max_length must be from 2 to 1048576, and is {request.MaxLength}.", "max_length"));
        }

        var file = await db.Files.AsNoTracking().FindOwnedAsync(caller, id, cancellationToken);
        if (file is null)
        {
            return (null, ErrorResult.NotFound("file", id));
        }

        BaseModel? model = null;
        if (request.Model is { } name)
        {
            model = await db.Models.AsNoTracking().FindOwnedAsync(caller, name, cancellationToken);
            if (model is null)
            {
                return (null, ErrorResult.Invalid("model_not_available", $"There is no base model '{name}'; see GET /v1/models.", "model"));
            }
        }

        var settings = new DataConfig
        {
            Train = file.FileName,
            Format = request.Format,
            Columns = request.Columns,
            MaxLength = request.MaxLength,
            TrainOnPrompt = request.TrainOnPrompt,
        };
        return (await reader.ReportAsync(file, model, settings, request.Use, cancellationToken), null);
    }
}
