using System.Globalization;

namespace TrainingService.Worker.Supervision;

/// <summary>
/// How far a download of some files is. Each piece that arrives is a sign of the job's life; now and then a line of its story says how
/// many bytes there are.
/// </summary>
/// <param name="what">What is fetched, in the owner's words.</param>
/// <param name="total">Bytes of all files.</param>
/// <param name="quiet">A download that is over sooner is not worth a line.</param>
internal sealed class DownloadMeter(string what, string source, long total, TimeSpan quiet, ReportBuffer reports, TimeProvider clock)
{
    private static readonly TimeSpan NoteEvery = TimeSpan.FromSeconds(5);

    private readonly long _start = clock.GetTimestamp();
    private long _finished;
    private long? _told;

    /// <param name="bytes">How much of the current file is there.</param>
    public void At(long bytes)
    {
        reports.Touch();
        if (_told is { } told ? clock.GetElapsedTime(told) >= NoteEvery : IsLong)
        {
            Tell(_finished + bytes);
        }
    }

    /// <param name="bytes">Length of the file that is complete now.</param>
    public void Finished(long bytes)
    {
        _finished += bytes;
        if (_finished == total && (_told is not null || IsLong))
        {
            Tell(total);
        }
    }

    private bool IsLong => clock.GetElapsedTime(_start) >= quiet;

    private void Tell(long bytes)
    {
        _told = clock.GetTimestamp();
        reports.Add(new DownloadProgress(what, source, bytes, total));
    }
}

/// <summary>How far a download is.</summary>
internal sealed record DownloadProgress(string What, string Source, long Bytes, long TotalBytes)
{
    public string Message => string.Create(
        CultureInfo.InvariantCulture, $"Fetched {Bytes / 1e6:0.0} of {TotalBytes / 1e6:0.0} MB of {What} from {Source}.");
}
