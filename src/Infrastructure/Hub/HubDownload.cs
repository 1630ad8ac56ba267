using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using Microsoft.Extensions.Logging;

namespace TrainingService.Infrastructure.Hub;

/// <summary>
/// Fetches one file to a path. What has arrived stays in <c>path.part</c> when the connection or the process ends, and the next try goes on
/// from there; the file takes its name when its size and its hash are the declared ones, and not before.
/// </summary>
public sealed partial class HubDownload(HubHttp http, HubClient hub, TimeProvider clock, ILogger<HubDownload> logger)
{
    private const int DiskFullUnix = 28;
    private const int DiskFullWindows = unchecked((int)0x80070070);

    /// <param name="progress">Told the bytes that lie on the disk, often.</param>
    /// <exception cref="HubException">The file cannot be had.</exception>
    public async Task RunAsync(
        HubRepository repository, HubFile file, string path, Action<long> progress, CancellationToken cancellationToken)
    {
        var part = new PartFile(path);
        var mismatches = 0;
        var tries = 0;
        var furthest = part.Bytes;
        while (true)
        {
            try
            {
                await TransferAsync(repository, file, part, progress, cancellationToken);
                part.Complete();
                return;
            }
            catch (HubException e) when (e.IsMismatch)
            {
                part.Delete();
                if (++mismatches > 1)
                {
                    throw;
                }

                Restarting(file.Path, e.Message);
            }
            catch (HubException e) when (e.Fault == HubFault.Unreachable)
            {
                // Only what no try had reached before is progress: a server that starts over again and again gets no further.
                tries = part.Bytes > furthest + HubBody.FewestBytes ? 1 : tries + 1;
                furthest = Math.Max(furthest, part.Bytes);
                if (tries >= hub.Options.Attempts)
                {
                    throw new HubException(HubFault.Unreachable, $"{file.Path} could not be fetched in {tries} tries: {e.Message}", e);
                }

                Interrupted(file.Path, part.Bytes, file.Bytes, e.Message);
                await Task.Delay(HubRetry.Wait(hub.Options, tries, e), clock, cancellationToken);
            }
            catch (IOException e) when (e.HResult is DiskFullUnix or DiskFullWindows)
            {
                throw DiskFull(file, e);
            }
        }
    }

    private static HubException DiskFull(HubFile file, Exception? inner = null) => new(
        HubFault.DiskFull, $"The disk is full: {file.Path} needs {file.Bytes} bytes.", inner);

    private static HubException Differs(HubFile file, string what) =>
        new(HubFault.Invalid, $"{file.Path} is not what the hub declares: {what}.") { IsMismatch = true };

    private async Task TransferAsync(
        HubRepository repository, HubFile file, PartFile part, Action<long> progress, CancellationToken cancellationToken)
    {
        await using var target = part.Open();
        if (target.Length > file.Bytes)
        {
            target.SetLength(0);
        }

        if (part.FreeBytes is { } free && free < file.Bytes - target.Length)
        {
            throw DiskFull(file);
        }

        var hash = file.NewHash();
        try
        {
            await HashAsync(target, hash, cancellationToken);
            if (target.Position < file.Bytes)
            {
                using var answer = await AskAsync(repository, file, part, target.Position, cancellationToken);
                if (target.Position > 0 && !IsContinuation(answer, target.Position, file.Bytes))
                {
                    // The server starts over, or has another idea of the file: so do we.
                    target.SetLength(0);
                    hash.Dispose();
                    hash = file.NewHash();
                    if (answer.StatusCode != HttpStatusCode.OK)
                    {
                        throw new HubException(HubFault.Unreachable, "The hub did not continue the file where it was asked to.");
                    }
                }

                part.WriteTag(answer.Headers.ETag);
                await FillAsync(answer, file, target, hash, progress, cancellationToken);
            }

            progress(target.Position);
            var got = Convert.ToHexStringLower(hash.GetHashAndReset());
            if (got != file.Hash)
            {
                throw Differs(file, $"its {file.HashName} is {got}, and {file.Hash} was expected");
            }

            target.Flush(flushToDisk: true);
        }
        finally
        {
            hash.Dispose();
        }
    }

    private Task<HttpResponseMessage> AskAsync(HubRepository repository, HubFile file, PartFile part, long from, CancellationToken cancellationToken)
    {
        var condition = from > 0 && part.ReadTag() is { } tag ? new RangeConditionHeaderValue(tag) : null;
        return http.GetAsync(
            hub.FileAddress(repository, file), repository.Id, from > 0 ? new RangeHeaderValue(from, null) : null, condition, cancellationToken);
    }

    private async Task FillAsync(
        HttpResponseMessage answer, HubFile file, FileStream target, IncrementalHash hash, Action<long> progress, CancellationToken cancellationToken)
    {
        if (answer.Content.Headers.ContentLength is { } announced && announced != file.Bytes - target.Position)
        {
            throw Differs(file, $"its server announces {target.Position + announced} bytes, and {file.Bytes} were expected");
        }

        await HubBody.ReadAsync(answer, hub.Options.Idle, HubBody.FewestBytes, async piece =>
        {
            if (piece.Length > file.Bytes - target.Position)
            {
                throw Differs(file, $"it has more than the {file.Bytes} bytes that were expected");
            }

            hash.AppendData(piece.Span);
            await target.WriteAsync(piece, cancellationToken);
            progress(target.Position);
        }, cancellationToken);
        if (target.Position < file.Bytes)
        {
            throw new HubException(HubFault.Unreachable, $"The hub's answer ended after {target.Position} of {file.Bytes} bytes.");
        }
    }

    private static bool IsContinuation(HttpResponseMessage answer, long from, long bytes) =>
        answer.StatusCode == HttpStatusCode.PartialContent
        && answer.Content.Headers.ContentRange is { HasRange: true } range && range.From == from && (!range.HasLength || range.Length == bytes);

    /// <summary>Brings the hash up to what lies on the disk already; the stream stands at its end then.</summary>
    private static async Task HashAsync(FileStream target, IncrementalHash hash, CancellationToken cancellationToken)
    {
        var buffer = new byte[1 << 17];
        for (var left = target.Length; left > 0; left = target.Length - target.Position)
        {
            hash.AppendData(buffer, 0, await target.ReadAsync(buffer, cancellationToken));
        }
    }

    [LoggerMessage(1, LogLevel.Warning, "Hub: {File} stopped at {Bytes} of {Total} bytes and goes on: {Reason}")]
    private partial void Interrupted(string file, long bytes, long total, string reason);

    [LoggerMessage(2, LogLevel.Warning, "Hub: {File} is fetched once more from its start: {Reason}")]
    private partial void Restarting(string file, string reason);
}
