using System.Net;
using System.Net.Sockets;

namespace TrainingService.Infrastructure.Hub;

/// <summary>Where a connection may lead. An answer of the hub must not send us to machines that only we can reach.</summary>
/// <param name="resolve">Addresses of a host.</param>
/// <param name="connect">Opens a connection to the first of the addresses that answers.</param>
public sealed class HubNetwork(
    Func<string, CancellationToken, Task<IPAddress[]>> resolve, Func<IPAddress[], int, CancellationToken, Task<Stream>> connect)
{
    /// <summary>Kinds of addresses: each but the first is reached from inside alone.</summary>
    internal enum Reach
    {
        Public,
        Private,
        Loopback,
        LinkLocal,
        Reserved,
    }

    /// <summary>The system's resolver and plain sockets.</summary>
    public static HubNetwork Default { get; } = new(Dns.GetHostAddressesAsync, ConnectSocketAsync);

    /// <summary>Connects to a host when its addresses are public, or of the kind that the hub's own host is of.</summary>
    /// <param name="hub">Host of the hub itself, which the operator chose.</param>
    /// <exception cref="HubException">They are not. Every address counts: a mixed answer is refused as a whole.</exception>
    internal async Task<Stream> ConnectAsync(string hub, string host, int port, CancellationToken cancellationToken)
    {
        var addresses = await resolve(host, cancellationToken);
        if (!string.Equals(host, hub, StringComparison.OrdinalIgnoreCase) && addresses.Any(address => ReachOf(address) != Reach.Public))
        {
            var allowed = (await resolve(hub, cancellationToken)).Select(ReachOf).Append(Reach.Public).ToHashSet();
            if (addresses.FirstOrDefault(address => !allowed.Contains(ReachOf(address))) is not null)
            {
                throw Refused(host);
            }
        }

        return await connect(addresses, port, cancellationToken);
    }

    internal static HubException Refused(string host) => new(
        HubFault.Invalid, $"The hub redirects to '{host}', an address inside a private network, where no model is fetched from.");

    internal static Reach ReachOf(IPAddress address)
    {
        if (address.IsIPv4MappedToIPv6)
        {
            return ReachOf(address.MapToIPv4());
        }

        var bytes = address.GetAddressBytes();
        return address.AddressFamily == AddressFamily.InterNetwork ? ReachOfV4(bytes) : ReachOfV6(address, bytes);
    }

    private static Reach ReachOfV4(byte[] b) => (b[0], b[1]) switch
    {
        (127, _) => Reach.Loopback,
        (10, _) or (172, >= 16 and <= 31) or (192, 168) or (100, >= 64 and <= 127) => Reach.Private,
        (169, 254) => Reach.LinkLocal,
        (0 or >= 224, _) or (198, 18 or 19) or (192, 0) => Reach.Reserved,
        _ => Reach.Public,
    };

    private static Reach ReachOfV6(IPAddress address, byte[] b)
    {
        if (IPAddress.IsLoopback(address))
        {
            return Reach.Loopback;
        }

        if (address.IsIPv6LinkLocal)
        {
            return Reach.LinkLocal;
        }

        if (address.IsIPv6UniqueLocal || address.IsIPv6SiteLocal)
        {
            return Reach.Private;
        }

        // Addresses that carry one of the old kind: 64:ff9b::/96 translates, 2002::/16 tunnels.
        return (b[0], b[1], b[2], b[3]) switch
        {
            (0x00, 0x64, 0xff, 0x9b) => ReachOfV4(b[12..]),
            (0x20, 0x02, _, _) => ReachOfV4(b[2..6]),
            (0xff, _, _, _) or (0, _, _, _) => Reach.Reserved,
            _ => Reach.Public,
        };
    }

    private static async Task<Stream> ConnectSocketAsync(IPAddress[] addresses, int port, CancellationToken cancellationToken)
    {
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(addresses, port, cancellationToken);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
