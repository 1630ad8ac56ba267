using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using TrainingService.Api.Http;
using TrainingService.Api.Models;
using TrainingService.Infrastructure;
using TrainingService.Training;
using TrainingService.Training.Models;
using TrainingService.Training.Scoring;
using TrainingService.Worker.Scoring;

namespace TrainingService.Api.Scores;

internal static class ScoreEndpoints
{
    public static void MapScores(this IEndpointRouteBuilder routes) => routes.MapGroup("/v1/scores").WithTags("Scores").RequireAuthorization()
        .MapPost("", Score).WithSummary("Rewards of answers by a reward model")
        .WithDescription("Models are loaded when they are asked for, in a process beside the API; the first request of a model waits for it. "
            + "Requests of one model that come together run as one batch.");

    private static async Task<Results<Ok<ScoresResponse>, ErrorResult>> Score(
        ScoreRequest request, Caller caller, AppDbContext db, ScoreService scores, IOptions<ScoresOptions> options, HttpContext http,
        CancellationToken cancellationToken)
    {
        if (Refusal(request, options.Value.MostAnswers) is { } refused)
        {
            return refused;
        }

        ScoredModel? model = null;
        if (await db.Models.AsNoTracking().FindOwnedAsync(caller, request.Model, cancellationToken) is { } own)
        {
            model = ModelConfig.Parse(own.ConfigJson).Score is null ? null : new(caller.ProjectId, null, own.Id);
        }
        else if (await db.FindFineTunedAsync(caller, request.Model, cancellationToken) is { } job)
        {
            model = SpecJson.Parse(job.SpecJson).Spec?.Objective.GivesScores() == true ? new(caller.ProjectId, job.Id, null) : null;
        }
        else
        {
            return ErrorResult.NotFound("model", request.Model, "model");
        }

        if (model is null)
        {
            return ErrorResult.Invalid(
                "not_a_reward_model", $"'{request.Model}' has no score head, so it gives no rewards; use a model of a job with objective reward or regression.", "model");
        }

        try
        {
            var rows = await scores.ScoreAsync(model, request.Input, cancellationToken);
            var tokens = rows.Sum(row => row.Sum(score => (long)score.Tokens));
            return TypedResults.Ok(new ScoresResponse(request.Model, [.. rows.Select((row, index) => RowScores.From(index, row))], new(tokens, tokens)));
        }
        catch (ScoreException failed)
        {
            return ResultOf(failed, http);
        }
    }

    /// <summary>What can be said before the model is looked at.</summary>
    private static ErrorResult? Refusal(ScoreRequest request, int mostAnswers)
    {
        if (request.Input.Count == 0)
        {
            return ErrorResult.Invalid("empty_input", "input holds no row; give at least one.", "input");
        }

        var answers = 0;
        foreach (var (index, row) in request.Input.Index())
        {
            try
            {
                answers += ScoreInput.Read(row, $"input[{index}]").Places.Count;
            }
            catch (TrainingException unreadable)
            {
                return ErrorResult.Invalid("invalid_input", unreadable.Message, unreadable.Param);
            }
        }

        return answers <= mostAnswers
            ? null
            : ErrorResult.Invalid("too_many_inputs", $"input holds {answers} answers, and a request may hold {mostAnswers} (setting Scores:MostAnswers); send several.", "input");
    }

    private static ErrorResult ResultOf(ScoreException failed, HttpContext http)
    {
        if (failed.Code is "invalid_input" or "invalid_model" or "model_too_large")
        {
            return ErrorResult.Invalid(failed.Code, failed.Message, failed.Param);
        }

        var status = failed.Code switch
        {
            "too_many_scores" => StatusCodes.Status429TooManyRequests,
            "internal" => StatusCodes.Status500InternalServerError,
            _ => StatusCodes.Status503ServiceUnavailable,
        };
        if (status != StatusCodes.Status500InternalServerError)
        {
            http.Response.Headers.RetryAfter = Outage.RetryAfterSeconds;
        }

        return ErrorResult.Of(status, new ErrorDetail(failed.Message, ErrorDetail.ServerError, failed.Param, failed.Code));
    }
}
