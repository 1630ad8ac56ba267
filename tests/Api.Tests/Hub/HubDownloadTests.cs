using System.Globalization;
using Microsoft.AspNetCore.Http;
using TrainingService.Infrastructure.Hub;
using TrainingService.Tests;

namespace TrainingService.Api.Tests.Hub;

/// <summary>A file arrives whole and checked, or not at all.</summary>
public sealed class HubDownloadTests
{
    private static byte[] Weights { get; } = [.. Enumerable.Range(0, 300_000).Select(i => (byte)(i * 7 >> 3))];

    [Fact]
    public async Task A_file_arrives_through_the_redirect()
    {
        await using var hub = await StartAsync();
        await hub.FetchAsync();
        await AssertWholeAsync(hub);
    }

    [Fact]
    public async Task A_small_file_is_checked_by_gits_hash()
    {
        await using var hub = await StartAsync();
        var content = hub.Server.Files["config.json"];
        var file = new HubFile("config.json", content.Length, null, HubServer.GitSha1(content));
        await hub.FetchAsync(file);
        Assert.Equal(content, await File.ReadAllBytesAsync(hub.Target));
        File.Delete(hub.Target);
        await HubTrial.FailsAsync(HubFault.Invalid, "git sha1", () => hub.FetchAsync(file with { GitSha1 = new string('0', 40) }));
    }

    [Fact]
    public async Task A_cut_connection_is_resumed_where_it_broke()
    {
        await using var hub = await StartAsync();
        var left = 2;
        hub.Server.Bend = async context => HubServer.IsCdn(context) && left-- > 0 && await SendPartAsync(context, hub, 100_000);

        await hub.FetchAsync();

        await AssertWholeAsync(hub);
        var asked = hub.Server.Seen.Where(request => request.IsCdn).ToList();
        Assert.Equal(3, asked.Count);
        Assert.Null(asked[0].Range);
        Assert.Equal(["bytes=100000-", "bytes=200000-"], asked[1..].Select(request => request.Range));
        Assert.Equal($"\"{HubServer.Sha256(Weights)}\"", asked[1].IfRange);
    }

    [Fact]
    public async Task What_a_killed_process_left_is_not_fetched_again()
    {
        await using var hub = await StartAsync();
        await File.WriteAllBytesAsync(hub.Target + ".part", Weights[..200_000]);
        await hub.FetchAsync();
        await AssertWholeAsync(hub);
        Assert.Equal("bytes=200000-", hub.Server.Seen.Last().Range);
    }

    [Fact]
    public async Task A_part_that_is_whole_needs_no_hub()
    {
        await using var hub = await StartAsync();
        await File.WriteAllBytesAsync(hub.Target + ".part", Weights);
        await hub.FetchAsync();
        await AssertWholeAsync(hub);
        Assert.Empty(hub.Server.Seen);
    }

    [Theory]
    [InlineData(200_000)]
    [InlineData(300_000)]
    [InlineData(400_000)]
    public async Task A_part_of_something_else_is_fetched_anew(int bytes)
    {
        await using var hub = await StartAsync();
        await File.WriteAllBytesAsync(hub.Target + ".part", new byte[bytes]);
        await hub.FetchAsync();
        await AssertWholeAsync(hub);
    }

    [Fact]
    public async Task A_server_that_ignores_ranges_starts_over()
    {
        await using var hub = await StartAsync();
        await File.WriteAllBytesAsync(hub.Target + ".part", Weights[..200_000]);
        hub.Server.Bend = context =>
        {
            context.Request.Headers.Remove("Range");
            return Task.FromResult(false);
        };
        await hub.FetchAsync();
        await AssertWholeAsync(hub);
    }

    [Theory]
    [InlineData("bytes 0-99999/300000")]
    [InlineData("bytes 200000-299999/300001")]
    [InlineData("nonsense")]
    public async Task A_range_that_was_not_asked_for_starts_over(string range)
    {
        await using var hub = await StartAsync();
        await File.WriteAllBytesAsync(hub.Target + ".part", Weights[..200_000]);
        var left = 1;
        hub.Server.Bend = async context =>
        {
            if (!HubServer.IsCdn(context) || left-- == 0)
            {
                return false;
            }

            context.Response.StatusCode = 206;
            context.Response.Headers.ContentRange = range;
            await context.Response.Body.WriteAsync(Weights.AsMemory(0, 100_000));
            return true;
        };
        await hub.FetchAsync();
        await AssertWholeAsync(hub);
    }

    [Fact]
    public async Task A_hash_that_lies_is_named_and_nothing_is_kept()
    {
        await using var hub = await StartAsync();
        var declared = new HubFile("model.safetensors", Weights.Length, new string('d', 64), null);
        var e = await HubTrial.FailsAsync(HubFault.Invalid, new string('d', 64), () => hub.FetchAsync(declared));
        Assert.Contains($"model.safetensors is not what the hub declares: its sha256 is {HubServer.Sha256(Weights)}", e.Message, StringComparison.Ordinal);
        Assert.Equal(2, hub.Server.Seen.Count(request => request.IsCdn));
        Assert.Empty(Directory.GetFiles(hub.Folder));
    }

    [Fact]
    public async Task More_bytes_than_declared_stop_the_download_at_once()
    {
        await using var hub = await StartAsync();
        hub.Server.Bend = async context =>
        {
            while (HubServer.IsCdn(context) && !context.RequestAborted.IsCancellationRequested)
            {
                await context.Response.Body.WriteAsync(Weights, context.RequestAborted);
            }

            return HubServer.IsCdn(context);
        };
        await HubTrial.FailsAsync(HubFault.Invalid, "more than the 300000 bytes", () => hub.FetchAsync());
        Assert.InRange(hub.Most, 1, 300_000);
        Assert.Empty(Directory.GetFiles(hub.Folder));
    }

    [Theory]
    [InlineData(299_999)]
    [InlineData(300_001)]
    [InlineData(9_000_000_000_000)]
    public async Task A_length_that_lies_is_refused_before_the_body(long length)
    {
        await using var hub = await StartAsync();
        hub.Server.Bend = async context =>
        {
            if (!HubServer.IsCdn(context))
            {
                return false;
            }

            context.Response.ContentLength = length;
            await context.Response.Body.WriteAsync(Weights.AsMemory(0, 1000));
            await context.Response.Body.FlushAsync();
            await Task.Delay(Timeout.Infinite, context.RequestAborted).ContinueWith(_ => { }, TaskScheduler.Default);
            return HubServer.Cut(context);
        };
        await HubTrial.FailsAsync(
            HubFault.Invalid, $"announces {length.ToString(CultureInfo.InvariantCulture)} bytes, and 300000", () => hub.FetchAsync());
    }

    [Fact]
    public async Task A_body_that_always_ends_early_is_given_up()
    {
        await using var hub = await StartAsync(options => options with { Attempts = 3 });
        hub.Server.Bend = async context =>
        {
            if (!HubServer.IsCdn(context))
            {
                return false;
            }

            await context.Response.Body.WriteAsync(Weights.AsMemory(0, 100_000));
            return true;
        };
        await HubTrial.FailsAsync(HubFault.Unreachable, "ended after 100000 of 300000 bytes", () => hub.FetchAsync());
        Assert.InRange(hub.Server.Seen.Count(request => request.IsCdn), 3, 5);
    }

    [Theory]
    [InlineData(500)]
    [InlineData(503)]
    [InlineData(429)]
    public async Task A_server_in_trouble_is_asked_again(int status)
    {
        await using var hub = await StartAsync();
        var left = 3;
        hub.Server.Bend = context => Task.FromResult(left-- > 0 && HubServer.Status(context, status));
        await hub.FetchAsync();
        await AssertWholeAsync(hub);
    }

    [Fact]
    public async Task The_wait_that_a_server_asks_for_is_kept()
    {
        await using var hub = await StartAsync();
        var left = 1;
        hub.Server.Bend = context =>
        {
            context.Response.Headers.RetryAfter = "1";
            return Task.FromResult(left-- > 0 && HubServer.Status(context, 429));
        };
        var start = TimeProvider.System.GetTimestamp();
        await hub.FetchAsync();
        Assert.True(TimeProvider.System.GetElapsedTime(start) > TimeSpan.FromSeconds(0.9));
    }

    [Fact]
    public async Task A_body_that_drips_counts_as_cut()
    {
        await using var hub = await StartAsync(options => options with { IdleSeconds = 0.3, Attempts = 2 });
        hub.Server.Bend = async context =>
        {
            for (var i = 0; HubServer.IsCdn(context) && !context.RequestAborted.IsCancellationRequested; i++)
            {
                await context.Response.Body.WriteAsync(Weights.AsMemory(i, 1), context.RequestAborted);
                await context.Response.Body.FlushAsync(context.RequestAborted);
                await Task.Delay(20, context.RequestAborted);
            }

            return HubServer.IsCdn(context);
        };
        await HubTrial.FailsAsync(HubFault.Unreachable, "stalled", () => hub.FetchAsync());
    }

    [Fact]
    public async Task Cancelling_ends_a_download_within_a_second_and_keeps_what_came()
    {
        await using var hub = await StartAsync();
        using var cancel = new CancellationTokenSource();
        hub.Server.Bend = async context =>
        {
            if (!HubServer.IsCdn(context))
            {
                return false;
            }

            await context.Response.Body.WriteAsync(Weights.AsMemory(0, 200_000));
            await context.Response.Body.FlushAsync();
            await Task.Delay(Timeout.Infinite, context.RequestAborted).ContinueWith(_ => { }, TaskScheduler.Default);
            return true;
        };
        var fetching = hub.FetchAsync(cancellationToken: cancel.Token);
        while (!File.Exists(hub.Target + ".part") || new FileInfo(hub.Target + ".part").Length < 200_000)
        {
            await Task.Delay(10, TestContext.Current.CancellationToken);
        }

        var start = TimeProvider.System.GetTimestamp();
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => fetching);
        Assert.True(TimeProvider.System.GetElapsedTime(start) < TimeSpan.FromSeconds(1));
        Assert.Equal(200_000, new FileInfo(hub.Target + ".part").Length);
    }

    [Fact]
    public async Task A_disk_that_is_too_small_is_told_before_the_first_byte()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "The room on a disk is not asked for there.");
        await using var hub = await StartAsync();
        await HubTrial.FailsAsync(
            HubFault.DiskFull, "The disk is full", () => hub.FetchAsync(new HubFile("model.safetensors", long.MaxValue, new string('d', 64), null)));
        Assert.Empty(hub.Server.Seen);
    }

    [Fact]
    public async Task A_disk_that_runs_full_on_the_way_is_told()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "The device that is always full is Linux's.");
        await using var hub = await StartAsync();
        File.CreateSymbolicLink(hub.Target + ".part", "/dev/full");
        await HubTrial.FailsAsync(HubFault.DiskFull, "The disk is full", () => hub.FetchAsync());
    }

    private static async Task<HubTrial> StartAsync(Func<HubOptions, HubOptions>? change = null)
    {
        var hub = await HubTrial.StartAsync(change);
        hub.Server.Files["model.safetensors"] = Weights;
        return hub;
    }

    private static async Task AssertWholeAsync(HubTrial hub)
    {
        Assert.Equal(Weights, await File.ReadAllBytesAsync(hub.Target));
        Assert.Equal([hub.Target], Directory.GetFiles(hub.Folder));
    }

    /// <summary>Sends what was asked for, as far as a number of bytes, and cuts the connection.</summary>
    private static async Task<bool> SendPartAsync(HttpContext context, HubTrial hub, int bytes)
    {
        var from = context.Request.GetTypedHeaders().Range?.Ranges.Single().From is { } start ? (int)start : 0;
        context.Response.StatusCode = from > 0 ? 206 : 200;
        context.Response.Headers.ETag = $"\"{HubServer.Sha256(Weights)}\"";
        context.Response.ContentLength = Weights.Length - from;
        if (from > 0)
        {
            context.Response.Headers.ContentRange = $"bytes {from}-{Weights.Length - 1}/{Weights.Length}";
        }

        await context.Response.Body.WriteAsync(Weights.AsMemory(from, bytes));
        await context.Response.Body.FlushAsync();
        while (!context.RequestAborted.IsCancellationRequested && (!File.Exists(hub.Target + ".part") || new FileInfo(hub.Target + ".part").Length < from + bytes))
        {
            await Task.Delay(10);   // a connection that breaks takes along what has not been read
        }

        return HubServer.Cut(context);
    }
}
