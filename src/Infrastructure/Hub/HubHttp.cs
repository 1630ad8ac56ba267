using System.Net;
using System.Net.Http.Headers;
using Microsoft.Extensions.Options;

namespace TrainingService.Infrastructure.Hub;

/// <summary>
/// One request to the hub, its redirects followed by hand: the token goes to the hub's own address and nowhere else, a redirect may not
/// lead from https to http or into a private network, and nothing is unpacked.
/// </summary>
public sealed class HubHttp : IDisposable
{
    private const int MostRedirects = 8;

    private readonly IOptions<HubOptions> _options;
    private readonly HubNetwork _network;
    private readonly HttpClient _client;

    public HubHttp(IOptions<HubOptions> options, HubNetwork network)
    {
        _options = options;
        _network = network;
        var handler = new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            AutomaticDecompression = DecompressionMethods.None,
            UseCookies = false,
            ConnectTimeout = TimeSpan.FromSeconds(15),
            PooledConnectionLifetime = TimeSpan.FromMinutes(5),
            ConnectCallback = ConnectAsync,
        };
        _client = new HttpClient(handler) { Timeout = Timeout.InfiniteTimeSpan };
        _client.DefaultRequestHeaders.UserAgent.ParseAdd("TrainingService/0.1");
        _client.DefaultRequestHeaders.AcceptEncoding.ParseAdd("identity");
    }

    /// <summary>The hub's address, with a slash at its end.</summary>
    /// <exception cref="HubException">There is none.</exception>
    public Uri Endpoint => _options.Value.Endpoint is { Length: > 0 } address
        ? new Uri(address.TrimEnd('/') + "/")
        : throw new HubException(
            HubFault.NotConfigured, "This service fetches no models from a hub (setting Hub:Endpoint is empty); upload the model's folder as an archive instead.");

    /// <summary>Asks once. The caller reads the body, and disposes the answer.</summary>
    /// <param name="subject">The model, for messages.</param>
    /// <exception cref="HubException">No answer, or one that says no.</exception>
    public async Task<HttpResponseMessage> GetAsync(
        Uri address, HubModelId subject, RangeHeaderValue? range, RangeConditionHeaderValue? condition, CancellationToken cancellationToken)
    {
        var endpoint = Endpoint;
        var token = await HubToken.ReadAsync(_options.Value, cancellationToken);
        for (var hop = 0; hop <= MostRedirects; hop++)
        {
            Check(endpoint, address);
            using var request = new HttpRequestMessage(HttpMethod.Get, address);
            request.Headers.Range = range;
            request.Headers.IfRange = condition;
            if (token is not null && IsSameOrigin(address, endpoint))
            {
                request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
            }

            var answer = await SendAsync(request, cancellationToken);
            if (IsRedirect(answer.StatusCode) && answer.Headers.Location is { } location)
            {
                answer.Dispose();
                address = new Uri(address, location);
                continue;
            }

            try
            {
                HubAnswers.ThrowIfRefused(answer, subject, hasToken: token is not null);
                return answer;
            }
            catch (HubException)
            {
                answer.Dispose();
                throw;
            }
        }

        throw new HubException(HubFault.Invalid, $"The hub redirects more than {MostRedirects} times and leads nowhere.");
    }

    public void Dispose() => _client.Dispose();

    private async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        patience.CancelAfter(_options.Value.Idle);
        try
        {
            return await _client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, patience.Token);
        }
        catch (OperationCanceledException e) when (!cancellationToken.IsCancellationRequested)
        {
            throw Unreachable(request, $"did not answer within {_options.Value.IdleSeconds:0.##} s", e);
        }
        catch (HttpRequestException e) when (e.InnerException is HubException refused)
        {
            throw new HubException(refused.Fault, refused.Message, e);
        }
        catch (HttpRequestException e)
        {
            throw Unreachable(request, $"cannot be reached ({Reason(e)})", e);
        }
    }

    private static HubException Unreachable(HttpRequestMessage request, string what, Exception inner) =>
        new(HubFault.Unreachable, $"The hub at {request.RequestUri!.Host} {what}.", inner);

    private static string Reason(HttpRequestException e) => e.HttpRequestError switch
    {
        HttpRequestError.NameResolutionError => "its name is not known",
        HttpRequestError.ConnectionError => "no connection",
        HttpRequestError.SecureConnectionError => "no trusted connection",
        _ => "the connection failed",
    };

    private ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken) =>
        new(ConnectAsync(context.InitialRequestMessage.RequestUri!, context.DnsEndPoint, cancellationToken));

    /// <summary>A proxy that the operator set up is trusted, whatever its address; it decides itself where it connects to.</summary>
    private Task<Stream> ConnectAsync(Uri address, DnsEndPoint target, CancellationToken cancellationToken)
    {
        var isProxy = HttpClient.DefaultProxy.GetProxy(address) is { } proxy && proxy.IdnHost == target.Host && proxy.Port == target.Port;
        return _network.ConnectAsync(isProxy ? target.Host : Endpoint.IdnHost, target.Host, target.Port, cancellationToken);
    }

    /// <summary>What a redirect's address alone already tells.</summary>
    private static void Check(Uri endpoint, Uri address)
    {
        if (address.Scheme != Uri.UriSchemeHttps && (address.Scheme != Uri.UriSchemeHttp || endpoint.Scheme != Uri.UriSchemeHttp))
        {
            throw new HubException(HubFault.Invalid, $"The hub redirects to '{address.Scheme}://{address.Host}'; only https is followed.");
        }

        if (address.UserInfo.Length > 0)
        {
            throw new HubException(HubFault.Invalid, $"The hub redirects to an address at '{address.Host}' that holds a user's name; such are not followed.");
        }
    }

    private static bool IsSameOrigin(Uri one, Uri other) =>
        one.Scheme == other.Scheme && one.Port == other.Port && string.Equals(one.IdnHost, other.IdnHost, StringComparison.OrdinalIgnoreCase);

    private static bool IsRedirect(HttpStatusCode status) =>
        status is HttpStatusCode.MovedPermanently or HttpStatusCode.Found or HttpStatusCode.SeeOther
            or HttpStatusCode.TemporaryRedirect or HttpStatusCode.PermanentRedirect;
}
