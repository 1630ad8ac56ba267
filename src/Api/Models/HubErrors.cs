using TrainingService.Api.Http;
using TrainingService.Infrastructure.Hub;

namespace TrainingService.Api.Models;

/// <summary>Says in the words of HTTP why a model cannot be had from the hub.</summary>
internal static class HubErrors
{
    public static HubModelId Id(string name, string? revision)
    {
        try
        {
            return HubModelId.Of(name, revision);
        }
        catch (HubException e)
        {
            throw Answer(e);
        }
    }

    public static async Task<T> AnswerAsync<T>(Func<Task<T>> ask)
    {
        try
        {
            return await ask();
        }
        catch (HubException e)
        {
            throw Answer(e);
        }
    }

    private static RequestException Answer(HubException e)
    {
        var param = e.IsAboutRevision ? "revision" : "hub";
        return e.Fault switch
        {
            HubFault.NotConfigured => RequestException.Invalid("hub_not_configured", e.Message, param),
            HubFault.NotFound => RequestException.Invalid("hub_model_not_found", e.Message, param),
            HubFault.Denied => RequestException.Invalid("hub_model_denied", e.Message, param),
            HubFault.Invalid => RequestException.Invalid("hub_model_invalid", e.Message, param),
            HubFault.TooLarge => RequestException.Invalid("hub_model_too_large", e.Message, param),
            HubFault.Unreachable => new RequestException(
                StatusCodes.Status502BadGateway, new ErrorDetail(e.Message, ErrorDetail.ServerError, param, "hub_unreachable")),
            HubFault.DiskFull => new RequestException(
                StatusCodes.Status507InsufficientStorage, new ErrorDetail(e.Message, ErrorDetail.ServerError, param, "disk_full")),
        };
    }
}
