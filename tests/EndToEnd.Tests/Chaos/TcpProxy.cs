using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>What a <see cref="TcpProxy"/> does with the connections it has and gets.</summary>
internal enum ProxyMode
{
    /// <summary>Bytes go through.</summary>
    Pass,

    /// <summary>Nothing listens: new connections are refused, those that were open have been reset.</summary>
    Refuse,

    /// <summary>Connections open and stay open, and no byte goes through until <see cref="TcpProxy.Pass"/> lets those that were held go on.</summary>
    Blackhole,
}

/// <summary>Which bytes a cut counts.</summary>
internal enum ProxyDirection
{
    ToTarget,
    FromTarget,
}

/// <summary>Stands between a client and a server and breaks their connections on demand; the port stays the same throughout.</summary>
internal sealed class TcpProxy : IAsyncDisposable
{
    private readonly DnsEndPoint _target;
    private readonly IPEndPoint _local;
    private readonly CancellationTokenSource _ended = new();
    private readonly ConcurrentDictionary<Link, bool> _links = new();
    private readonly Lock _gate = new();
    private TaskCompletionSource _open = Opened();
    private Socket? _listener;
    private Socket? _placeholder;
    private Task _accepting = Task.CompletedTask;
    private (ProxyDirection Direction, long Left)? _cut;
    private long _toTarget;
    private long _fromTarget;
    private int _connections;
    private int _cuts;

    private TcpProxy(DnsEndPoint target)
    {
        _target = target;
        _listener = Listen(new IPEndPoint(IPAddress.Loopback, 0));
        _local = (IPEndPoint)_listener.LocalEndPoint!;
        _accepting = AcceptAsync(_listener);
    }

    public int Port => _local.Port;

    /// <summary>Host and port to give to the client.</summary>
    public string Endpoint => _local.ToString();

    public ProxyMode Mode { get; private set; }

    /// <summary>Bytes that reached the server so far.</summary>
    public long BytesToTarget => Interlocked.Read(ref _toTarget);

    /// <summary>Bytes that reached the client so far.</summary>
    public long BytesFromTarget => Interlocked.Read(ref _fromTarget);

    /// <summary>Connections that clients have opened so far.</summary>
    public int Connections => Volatile.Read(ref _connections);

    /// <summary>Cuts of <see cref="CutAfter"/> that have happened.</summary>
    public int Cuts => Volatile.Read(ref _cuts);

    /// <summary>Called when a cut of <see cref="CutAfter"/> has happened, before any new connection passes; null: nothing.</summary>
    public Action? OnCut { get; set; }

    /// <param name="target">Host and port of the server.</param>
    public static TcpProxy Start(string target)
    {
        var colon = target.LastIndexOf(':');
        return new TcpProxy(new DnsEndPoint(
            target[..colon], int.Parse(target[(colon + 1)..], System.Globalization.CultureInfo.InvariantCulture)));
    }

    public static TcpProxy Start(string host, int port) => new(new DnsEndPoint(host, port));

    public void Pass() => Switch(ProxyMode.Pass);

    public void Refuse() => Switch(ProxyMode.Refuse);

    public void Blackhole() => Switch(ProxyMode.Blackhole);

    /// <summary>Resets every open connection once this many more bytes have gone one way. New connections pass.</summary>
    public void CutAfter(long bytes, ProxyDirection direction)
    {
        lock (_gate)
        {
            _cut = (direction, bytes);
        }
    }

    /// <summary>Resets every open connection now.</summary>
    public void ResetAll()
    {
        foreach (var link in _links.Keys)
        {
            link.Reset();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _ended.CancelAsync();
        lock (_gate)
        {
            _listener?.Dispose();
            _placeholder?.Dispose();
        }

        ResetAll();
        await _accepting;
        await Task.WhenAll(_links.Keys.Select(link => link.Carrying));
        _ended.Dispose();
    }

    private static TaskCompletionSource Opened()
    {
        var gate = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        gate.SetResult();
        return gate;
    }

    private static Socket Bind(IPEndPoint local)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
        socket.Bind(local);
        return socket;
    }

    private static Socket Listen(IPEndPoint local)
    {
        var socket = Bind(local);
        socket.Listen(128);
        return socket;
    }

    private void Switch(ProxyMode mode)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_ended.IsCancellationRequested, this);
            Mode = mode;
            if (mode == ProxyMode.Refuse)
            {
                // A socket that is bound and does not listen answers with a reset and keeps the port ours.
                _listener?.Dispose();
                _listener = null;
                _placeholder ??= Bind(_local);
            }
            else if (_listener is null)
            {
                _placeholder?.Dispose();
                _placeholder = null;
                _listener = Listen(_local);
                _accepting = Task.WhenAll(_accepting, AcceptAsync(_listener));
            }

            if (mode == ProxyMode.Blackhole && _open.Task.IsCompleted)
            {
                _open = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            }
            else if (mode != ProxyMode.Blackhole)
            {
                _open.TrySetResult();
            }
        }

        if (mode == ProxyMode.Refuse)
        {
            ResetAll();
        }
    }

    private async Task AcceptAsync(Socket listener)
    {
        while (true)
        {
            Socket client;
            try
            {
                client = await listener.AcceptAsync(_ended.Token);
            }
            catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException or SocketException)
            {
                return;   // the listener was closed
            }

            Interlocked.Increment(ref _connections);
            var link = new Link(client);
            _links[link] = true;
            link.Carrying = CarryAsync(link);
            if (Mode == ProxyMode.Refuse)
            {
                link.Reset();   // accepted in the moment in which the door was shut
            }
        }
    }

    private async Task CarryAsync(Link link)
    {
        await Task.Yield();
        try
        {
            await WaitUntilOpenAsync();
            await link.Server.ConnectAsync(_target, _ended.Token);
            await Task.WhenAll(
                PumpAsync(link, link.Client, link.Server, ProxyDirection.ToTarget),
                PumpAsync(link, link.Server, link.Client, ProxyDirection.FromTarget));
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException or ObjectDisposedException)
        {
            // One side is gone, and the other one shall learn it.
        }
        finally
        {
            link.Reset();
            _links.TryRemove(link, out _);
        }
    }

    private async Task PumpAsync(Link link, Socket from, Socket to, ProxyDirection direction)
    {
        var buffer = new byte[1 << 16];
        try
        {
            while (await from.ReceiveAsync(buffer, _ended.Token) is > 0 and var read)
            {
                await WaitUntilOpenAsync();
                var (allowed, cut) = Allow(direction, read);
                await SendAsync(to, buffer.AsMemory(0, allowed));
                _ = direction == ProxyDirection.ToTarget
                    ? Interlocked.Add(ref _toTarget, allowed)
                    : Interlocked.Add(ref _fromTarget, allowed);
                if (cut)
                {
                    Interlocked.Increment(ref _cuts);
                    OnCut?.Invoke();
                    ResetAll();
                    return;
                }
            }

            to.Shutdown(SocketShutdown.Send);
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException or ObjectDisposedException)
        {
            link.Reset();
        }
    }

    private async Task SendAsync(Socket to, ReadOnlyMemory<byte> bytes)
    {
        while (bytes.Length > 0)
        {
            bytes = bytes[await to.SendAsync(bytes, _ended.Token)..];
        }
    }

    private (int Bytes, bool Cut) Allow(ProxyDirection direction, int read)
    {
        lock (_gate)
        {
            if (_cut is not { } cut || cut.Direction != direction)
            {
                return (read, false);
            }

            if (read < cut.Left)
            {
                _cut = cut with { Left = cut.Left - read };
                return (read, false);
            }

            _cut = null;
            return ((int)cut.Left, true);
        }
    }

    private Task WaitUntilOpenAsync()
    {
        lock (_gate)
        {
            return _open.Task.WaitAsync(_ended.Token);
        }
    }

    /// <summary>One connection of a client and the one to the server that belongs to it.</summary>
    private sealed class Link(Socket client)
    {
        public Socket Client => client;

        public Task Carrying { get; set; } = Task.CompletedTask;

        public Socket Server { get; } = new(SocketType.Stream, ProtocolType.Tcp);

        /// <summary>Closes both at once, so that each side reads a reset and not an end.</summary>
        public void Reset()
        {
            foreach (var socket in (ReadOnlySpan<Socket>)[client, Server])
            {
                try
                {
                    socket.LingerState = new LingerOption(true, 0);
                }
                catch (Exception e) when (e is SocketException or ObjectDisposedException)
                {
                    // closed already
                }

                socket.Dispose();
            }
        }
    }
}
