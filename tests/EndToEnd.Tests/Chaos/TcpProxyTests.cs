using System.Net;
using System.Net.Sockets;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>The proxy that other tests break connections with does what it says.</summary>
public sealed class TcpProxyTests : IDisposable
{
    private readonly TcpListener _echo = new(IPAddress.Loopback, 0);

    public TcpProxyTests()
    {
        _echo.Start();
        _ = ServeAsync();
    }

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Bytes_pass_both_ways_and_are_counted()
    {
        await using var proxy = TcpProxy.Start(_echo.LocalEndpoint.ToString()!);
        using var client = await ConnectAsync(proxy);

        await client.SendAsync(new byte[100_000], Cancel);

        Assert.Equal(100_000, await ReceiveAsync(client, 100_000));
        Assert.Equal((100_000L, 100_000L, 1), (proxy.BytesToTarget, proxy.BytesFromTarget, proxy.Connections));
    }

    [Fact]
    public async Task A_cut_resets_the_connection_after_exactly_so_many_bytes_and_the_next_one_passes()
    {
        await using var proxy = TcpProxy.Start(_echo.LocalEndpoint.ToString()!);
        proxy.CutAfter(30_000, ProxyDirection.FromTarget);
        using var client = await ConnectAsync(proxy);
        await client.SendAsync(new byte[50_000], Cancel);

        await Assert.ThrowsAsync<SocketException>(() => ReceiveAsync(client, 50_000));

        Assert.Equal((30_000L, 1), (proxy.BytesFromTarget, proxy.Cuts));
        using var next = await ConnectAsync(proxy);
        await next.SendAsync(new byte[50_000], Cancel);
        Assert.Equal(50_000, await ReceiveAsync(next, 50_000));
    }

    [Fact]
    public async Task Refused_connections_come_back_on_the_same_port()
    {
        await using var proxy = TcpProxy.Start(_echo.LocalEndpoint.ToString()!);
        using var before = await ConnectAsync(proxy);
        await before.SendAsync(new byte[1], Cancel);
        await ReceiveAsync(before, 1);

        proxy.Refuse();

        await Assert.ThrowsAsync<SocketException>(() => ReceiveAsync(before, 1));
        var refused = await Assert.ThrowsAsync<SocketException>(() => ConnectAsync(proxy));
        Assert.Equal(SocketError.ConnectionRefused, refused.SocketErrorCode);
        proxy.Pass();
        using var after = await ConnectAsync(proxy);
        await after.SendAsync(new byte[1], Cancel);
        Assert.Equal(1, await ReceiveAsync(after, 1));
    }

    [Fact]
    public async Task A_black_hole_keeps_connections_open_and_lets_go_what_it_held()
    {
        await using var proxy = TcpProxy.Start(_echo.LocalEndpoint.ToString()!);
        proxy.Blackhole();
        using var client = await ConnectAsync(proxy);
        await client.SendAsync(new byte[7], Cancel);
        var answer = ReceiveAsync(client, 7);
        await Task.Delay(50, Cancel);
        Assert.False(answer.IsCompleted);
        Assert.Equal(0, proxy.BytesToTarget);

        proxy.Pass();

        Assert.Equal(7, await answer);
    }

    public void Dispose() => _echo.Dispose();

    private static async Task<Socket> ConnectAsync(TcpProxy proxy)
    {
        var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await client.ConnectAsync(IPEndPoint.Parse(proxy.Endpoint), Cancel);
        return client;
    }

    /// <summary>Reads until so many bytes have come; throws what the socket throws.</summary>
    private static async Task<int> ReceiveAsync(Socket client, int bytes)
    {
        var buffer = new byte[bytes];
        var read = 0;
        while (read < bytes && await client.ReceiveAsync(buffer.AsMemory(read), Cancel) is > 0 and var more)
        {
            read += more;
        }

        return read;
    }

    private async Task ServeAsync()
    {
        while (true)
        {
            try
            {
                _ = EchoAsync(await _echo.AcceptTcpClientAsync(CancellationToken.None));
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                return;   // the test is over
            }
        }
    }

    private static async Task EchoAsync(TcpClient client)
    {
        using (client)
        {
            try
            {
                await client.GetStream().CopyToAsync(client.GetStream(), CancellationToken.None);
            }
            catch (IOException)
            {
                // the proxy has reset the connection, as it was told
            }
        }
    }
}
