using System.Diagnostics;

namespace TrainingService.Training.Throughput;

/// <summary>Watches what a run takes, from its reports.</summary>
internal sealed class UsageMeter
{
    private readonly List<double> _seconds = [];
    private long _memoryAtStart;
    private long _last;

    /// <summary>Call it before the model is loaded.</summary>
    public void Start() => _memoryAtStart = Environment.WorkingSet;

    /// <summary>A step lasts from the report before it, whatever that was, to its own.</summary>
    public void Observe(Report report)
    {
        var now = Stopwatch.GetTimestamp();
        if (report is StepReport)
        {
            _seconds.Add(Stopwatch.GetElapsedTime(_last, now).TotalSeconds);
        }

        _last = now;
    }

    public RunUsage Read()
    {
        using var process = Process.GetCurrentProcess();
        return new(_memoryAtStart, process.PeakWorkingSet64, _seconds.Count > 1 ? Median.Of(_seconds.Skip(1)) : null);   // the first one warms up
    }
}
