using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Options;
using TrainingService.Infrastructure.Hub;
using TrainingService.Tests;

namespace TrainingService.Api.Tests.Hub;

/// <summary>Where requests and the token go, and where not.</summary>
public sealed class HubHttpTests
{
    private const string Secret = "hf_secret0123456789";

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task The_token_goes_to_the_hub_and_to_no_other_place(bool isFile)
    {
        var place = isFile ? Path.GetTempFileName() : $"HUB_TEST_TOKEN_{Guid.NewGuid():N}";
        try
        {
            if (isFile)
            {
                await File.WriteAllTextAsync(place, Secret + "\n");
            }
            else
            {
                Environment.SetEnvironmentVariable(place, Secret);
            }

            await using var hub = await HubTrial.StartAsync(
                options => options with { TokenFile = isFile ? place : null, TokenVariable = isFile ? null : place });
            hub.Server.Token = Secret;
            await hub.ReadAsync();
            await hub.FetchAsync();

            Assert.All(hub.Server.Seen, request => Assert.Equal(request.IsCdn ? null : $"Bearer {Secret}", request.Authorization));
            Assert.Single(hub.Server.Seen, request => request.IsCdn);
            Assert.DoesNotContain(Secret, hub.Client.Options.ToString(), StringComparison.Ordinal);
        }
        finally
        {
            Environment.SetEnvironmentVariable(isFile ? "HUB_TEST_NONE" : place, null);
            File.Delete(place);
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("   \n")]
    [InlineData("hf_broken\r\nX-Evil: 1")]
    [InlineData("hf_brökén")]
    public async Task A_token_that_is_none_is_told_without_its_letters(string content)
    {
        var file = Path.GetTempFileName();
        await File.WriteAllTextAsync(file, content);
        await using var hub = await HubTrial.StartAsync(options => options with { TokenFile = file });
        var e = await HubTrial.FailsAsync(HubFault.NotConfigured, "holds no access token", hub.ReadAsync);
        Assert.DoesNotContain("hf_br", e.ToString(), StringComparison.Ordinal);
        Assert.Empty(hub.Server.Seen);
        File.Delete(file);
        await HubTrial.FailsAsync(HubFault.NotConfigured, "cannot be read", hub.ReadAsync);
    }

    [Fact]
    public async Task Without_an_address_there_is_no_hub()
    {
        await using var hub = await HubTrial.StartAsync(options => options with { Endpoint = "" });
        await HubTrial.FailsAsync(HubFault.NotConfigured, "Hub:Endpoint is empty", hub.ReadAsync);
    }

    [Theory]
    [InlineData(401, "RepoNotFound", HubFault.NotFound, "a private model needs an access token")]
    [InlineData(401, null, HubFault.NotFound, "no model 'org/tiny'")]
    [InlineData(403, "GatedRepo", HubFault.Denied, "is gated: accept its terms")]
    [InlineData(403, null, HubFault.Denied, "does not let this service")]
    [InlineData(404, "RevisionNotFound", HubFault.NotFound, "no revision 'main'")]
    [InlineData(404, "EntryNotFound", HubFault.NotFound, "lacks a file")]
    [InlineData(418, null, HubFault.Invalid, "status 418")]
    public async Task A_refusal_says_what_to_do(int status, string? code, HubFault fault, string words)
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Bend = context => Task.FromResult(HubServer.Status(context, status, code));
        var e = await HubTrial.FailsAsync(fault, words, hub.ReadAsync);
        Assert.Equal(code == "RevisionNotFound", e.IsAboutRevision);
        Assert.Single(hub.Server.Seen);
    }

    [Fact]
    public async Task A_hub_that_is_not_there_is_unreachable()
    {
        await using var hub = await HubTrial.StartAsync();
        await hub.Server.DisposeAsync();
        await HubTrial.FailsAsync(HubFault.Unreachable, "cannot be reached", hub.ReadAsync);
    }

    [Fact]
    public async Task A_hub_that_says_nothing_is_given_up()
    {
        await using var hub = await HubTrial.StartAsync(options => options with { IdleSeconds = 0.3 });
        hub.Server.Bend = async context =>
        {
            await Task.Delay(Timeout.Infinite, context.RequestAborted).ContinueWith(_ => { }, TaskScheduler.Default);
            return true;
        };
        await HubTrial.FailsAsync(HubFault.Unreachable, "did not answer", hub.ReadAsync);
    }

    [Fact]
    public async Task Redirects_without_end_are_given_up()
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Bend = context => Task.FromResult(HubServer.Redirect(context, context.Request.Path + "?again=1"));
        await HubTrial.FailsAsync(HubFault.Invalid, "leads nowhere", hub.ReadAsync);
        Assert.Equal(9, hub.Server.Seen.Count);
    }

    [Theory]
    [InlineData("ftp://example.org/x", "only https")]
    [InlineData("file:///etc/passwd", "only https")]
    [InlineData("http://user:word@127.0.0.1/x", "user's name")]
    public async Task A_redirect_to_something_else_is_not_followed(string address, string words)
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Bend = context => Task.FromResult(HubServer.Redirect(context, address));
        await HubTrial.FailsAsync(HubFault.Invalid, words, hub.ReadAsync);
        Assert.Single(hub.Server.Seen);
    }

    [Fact]
    public async Task From_https_no_way_leads_to_http()
    {
        using var http = new HubHttp(Options.Create(new HubOptions { Endpoint = "https://hub.invalid" }), HubNetwork.Default);
        await HubTrial.FailsAsync(
            HubFault.Invalid, "only https", () => http.GetAsync(new Uri("http://hub.invalid/x"), HubTrial.Id, null, null, Cancellation));
    }

    [Theory]
    [InlineData("10.1.2.3")]
    [InlineData("172.16.0.1")]
    [InlineData("192.168.1.1")]
    [InlineData("100.64.0.1")]
    [InlineData("127.0.0.1")]
    [InlineData("169.254.169.254")]
    [InlineData("0.0.0.0")]
    [InlineData("[::1]")]
    [InlineData("[fe80::1]")]
    [InlineData("[fd00::1]")]
    [InlineData("[::ffff:10.0.0.1]")]
    [InlineData("[64:ff9b::a00:1]")]
    [InlineData("[2002:a00:1::]")]
    public async Task A_public_hub_does_not_lead_into_a_private_network(string host)
    {
        var connected = new List<IPAddress>();
        await using var hub = await StartPublicAsync(connected, IPAddress.Parse(host.Trim('[', ']')));
        foreach (var target in new[] { $"http://{host}/secrets", "http://mixed.test/secrets" })
        {
            hub.Server.Bend = context => Task.FromResult(HubServer.Redirect(context, target));
            await HubTrial.FailsAsync(HubFault.Invalid, "inside a private network", hub.ReadAsync);
        }

        Assert.All(connected, address => Assert.Equal(HubAddress, address));
    }

    [Fact]
    public async Task A_public_hub_leads_to_other_public_places()
    {
        var connected = new List<IPAddress>();
        await using var hub = await StartPublicAsync(connected, IPAddress.Loopback);
        hub.Server.Bend = context => Task.FromResult(
            context.Request.Host.Host == "hub.test" && HubServer.Redirect(context, $"http://other.test:{context.Connection.LocalPort}{context.Request.Path}"));
        await hub.ReadAsync();
        Assert.Equal(2, connected.Distinct().Count());
    }

    [Fact]
    public async Task A_private_hub_leads_to_private_places_of_its_own_kind_alone()
    {
        var network = new HubNetwork(
            (host, _) => Task.FromResult(new[] { IPAddress.Parse(host == "hub.test" ? "10.0.0.1" : host) }), (_, _, _) => Task.FromResult(Stream.Null));
        using var http = new HubHttp(Options.Create(new HubOptions { Endpoint = "http://hub.test" }), network);
        foreach (var refused in new[] { "127.0.0.1", "169.254.169.254" })
        {
            await HubTrial.FailsAsync(
                HubFault.Invalid, "inside a private network", () => http.GetAsync(new Uri($"http://{refused}/"), HubTrial.Id, null, null, Cancellation));
        }

        // The connection is opened; the stream behind it says nothing.
        await HubTrial.FailsAsync(
            HubFault.Unreachable, "cannot be reached", () => http.GetAsync(new Uri("http://10.9.9.9/"), HubTrial.Id, null, null, Cancellation));
    }

    [Theory]
    [InlineData("huggingface.co")]
    [InlineData("ftp://huggingface.co")]
    [InlineData("https://user@huggingface.co")]
    [InlineData("https://huggingface.co?x=1")]
    public void An_address_of_another_kind_is_no_hub(string endpoint) =>
        Assert.NotEmpty(new HubOptions { Endpoint = endpoint }.Validate(new(new object())));

    [Fact]
    public void Two_places_for_a_token_are_one_too_many() =>
        Assert.NotEmpty(new HubOptions { TokenFile = "a", TokenVariable = "b" }.Validate(new(new object())));

    private static IPAddress HubAddress { get; } = IPAddress.Parse("93.184.216.34");

    /// <summary>A hub that seems to stand on the internet; every connection ends at this machine all the same.</summary>
    private static Task<HubTrial> StartPublicAsync(List<IPAddress> connected, IPAddress mixedIn)
    {
        var network = new HubNetwork(
            (host, _) => Task.FromResult<IPAddress[]>(host switch
            {
                "hub.test" => [HubAddress],
                "other.test" => [IPAddress.Parse("93.184.216.35")],
                "mixed.test" => [HubAddress, mixedIn],
                _ => [IPAddress.Parse(host.Trim('[', ']'))],
            }),
            async (addresses, port, cancellationToken) =>
            {
                connected.AddRange(addresses);
                var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
                await socket.ConnectAsync(IPAddress.Loopback, port, cancellationToken);
                return new NetworkStream(socket, ownsSocket: true);
            });
        return HubTrial.StartAsync(options => options with { Endpoint = options.Endpoint.Replace("127.0.0.1", "hub.test", StringComparison.Ordinal) }, network);
    }
}
