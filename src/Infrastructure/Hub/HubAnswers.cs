using System.Net;

namespace TrainingService.Infrastructure.Hub;

/// <summary>Reads the status and the error headers of the hub's answers.</summary>
internal static class HubAnswers
{
    private static readonly TimeSpan LongestWait = TimeSpan.FromMinutes(1);

    /// <exception cref="HubException">The answer is a refusal, or is packed although that was not asked for.</exception>
    public static void ThrowIfRefused(HttpResponseMessage answer, HubModelId subject, bool hasToken)
    {
        if (!answer.IsSuccessStatusCode && answer.StatusCode != HttpStatusCode.RequestedRangeNotSatisfiable)
        {
            throw Refusal(answer, subject, hasToken);
        }

        // A packed body has another length and another hash than what was declared, and may unpack to anything.
        if (answer.Content.Headers.ContentEncoding.Any(encoding => !encoding.Equals("identity", StringComparison.OrdinalIgnoreCase)))
        {
            throw new HubException(HubFault.Invalid, "The hub sends a packed body (Content-Encoding), which was not asked for; it is not unpacked.");
        }
    }

    private static HubException Refusal(HttpResponseMessage answer, HubModelId subject, bool hasToken)
    {
        var status = answer.StatusCode;
        var code = answer.Headers.TryGetValues("X-Error-Code", out var codes) ? codes.First() : null;
        return (code, status) switch
        {
            ("GatedRepo", _) => new HubException(
                HubFault.Denied, $"Model '{subject.Name}' is gated: accept its terms on its page at the hub, " + (hasToken ? "with the account whose token this service uses." : "and have the operator give the service that account's token (Hub:TokenFile or Hub:TokenVariable).")),
            ("RevisionNotFound", _) => new HubException(
                HubFault.NotFound, $"Model '{subject.Name}' has no revision '{subject.Revision}' on the hub.")
            { IsAboutRevision = true },
            ("EntryNotFound", _) => new HubException(HubFault.NotFound, $"Model '{subject.Name}' lacks a file on the hub that it had listed."),
            ("RepoNotFound", _) or (_, HttpStatusCode.NotFound or HttpStatusCode.Unauthorized) => new HubException(
                HubFault.NotFound, $"The hub has no model '{subject.Name}' that this service may see; "
                + (hasToken ? "check the id, and whether the service's token may read it." : "check the id; a private model needs an access token (Hub:TokenFile or Hub:TokenVariable).")),
            (_, HttpStatusCode.Forbidden) => new HubException(HubFault.Denied, $"The hub does not let this service read model '{subject.Name}'."),
            (_, HttpStatusCode.TooManyRequests or HttpStatusCode.RequestTimeout or >= HttpStatusCode.InternalServerError) =>
                new HubException(HubFault.Unreachable, $"The hub answers with status {(int)status} at the moment.") { RetryAfter = RetryAfter(answer) },
            _ => new HubException(HubFault.Invalid, $"The hub answers with status {(int)status}, which is not understood."),
        };
    }

    private static TimeSpan? RetryAfter(HttpResponseMessage answer) =>
        answer.Headers.RetryAfter?.Delta is { } wait ? (wait < LongestWait ? wait : LongestWait) : null;
}
