namespace TrainingService.Infrastructure.Hub;

/// <summary>Reads a body that may stall, drip or break off.</summary>
internal static class HubBody
{
    /// <summary>For a long body: slower than this is as good as cut.</summary>
    public const int FewestBytes = 1 << 16;

    /// <summary>Hands out the body piece by piece.</summary>
    /// <param name="fewest">Bytes that must arrive within <paramref name="idle"/>, again and again, so that a byte now and then keeps nothing open.</param>
    /// <param name="take">Gets each piece; the memory is used again after it returns.</param>
    /// <exception cref="HubException">The body broke off, or hardly moved for the time that is allowed.</exception>
    public static async Task ReadAsync(
        HttpResponseMessage answer, TimeSpan idle, int fewest, Func<ReadOnlyMemory<byte>, ValueTask> take, CancellationToken cancellationToken)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        patience.CancelAfter(idle);
        var buffer = new byte[1 << 17];
        var since = 0;
        int read;
        while ((read = await ReadAsync(answer, buffer, idle, patience.Token, cancellationToken)) > 0)
        {
            await take(buffer.AsMemory(0, read));
            since += read;
            if (since >= fewest)
            {
                since = 0;
                patience.CancelAfter(idle);
            }
        }
    }

    /// <summary>A whole body that must be small, and here in time as a whole.</summary>
    /// <exception cref="HubException">It is not.</exception>
    public static async Task<byte[]> ReadAllAsync(HttpResponseMessage answer, TimeSpan idle, int most, CancellationToken cancellationToken)
    {
        using var whole = new MemoryStream();
        await ReadAsync(answer, idle, int.MaxValue, piece =>
        {
            if (whole.Length + piece.Length > most)
            {
                throw new HubException(HubFault.TooLarge, $"The hub's answer is larger than the {most} bytes that are read.");
            }

            whole.Write(piece.Span);
            return ValueTask.CompletedTask;
        }, cancellationToken);
        return whole.ToArray();
    }

    /// <summary>The first bytes of a body, whether the server stops there or goes on.</summary>
    /// <exception cref="HubException">There are fewer.</exception>
    public static async Task<byte[]> ReadStartAsync(HttpResponseMessage answer, TimeSpan idle, int bytes, CancellationToken cancellationToken)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        patience.CancelAfter(idle);
        try
        {
            await using var body = await answer.Content.ReadAsStreamAsync(patience.Token);
            var start = new byte[bytes];
            await body.ReadExactlyAsync(start, patience.Token);
            return start;
        }
        catch (OperationCanceledException e) when (!cancellationToken.IsCancellationRequested)
        {
            throw Stalled(idle, e);
        }
        catch (Exception e) when (e is HttpRequestException or IOException)
        {
            throw Cut(e);
        }
    }

    /// <summary>One piece. What fails here is the network: what <c>take</c> meets is another matter.</summary>
    private static async Task<int> ReadAsync(
        HttpResponseMessage answer, Memory<byte> buffer, TimeSpan idle, CancellationToken patience, CancellationToken cancellationToken)
    {
        try
        {
            var body = await answer.Content.ReadAsStreamAsync(patience);   // the same stream each time; the answer disposes it
            return await body.ReadAsync(buffer, patience);
        }
        catch (OperationCanceledException e) when (!cancellationToken.IsCancellationRequested)
        {
            throw Stalled(idle, e);
        }
        catch (Exception e) when (e is HttpRequestException or IOException)
        {
            throw Cut(e);
        }
    }

    private static HubException Stalled(TimeSpan idle, Exception inner) =>
        new(HubFault.Unreachable, $"The hub's answer stalled for {idle.TotalSeconds:0.##} s.", inner);

    private static HubException Cut(Exception inner) =>
        new(HubFault.Unreachable, "The connection to the hub was cut in the middle of an answer.", inner);
}
