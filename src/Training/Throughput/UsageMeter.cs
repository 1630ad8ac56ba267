using System.Diagnostics;
using TrainingService.Training.Devices;

namespace TrainingService.Training.Throughput;

/// <summary>Watches what a run takes, from its reports.</summary>
public sealed class UsageMeter
{
    private readonly List<double> _seconds = [];
    private long _memoryAtStart;
    private long _last;
    private long? _devicePeak;
    private IDeviceMemory? _device;

    /// <summary>Call it before the model is loaded.</summary>
    /// <param name="device">The GPU that the run is on; null: none.</param>
    public void Start(IDeviceMemory? device)
    {
        _device = device;
        _memoryAtStart = Environment.WorkingSet;
    }

    /// <summary>A step lasts from the report before it, whatever that was, to its own.</summary>
    public void Observe(Report report)
    {
        var now = Stopwatch.GetTimestamp();
        if (report is StepReport)
        {
            _seconds.Add(Stopwatch.GetElapsedTime(_last, now).TotalSeconds);

            // libtorch keeps what it has once taken, so that the end of a step shows its peak.
            _devicePeak = _device?.Read() is { } memory ? Math.Max(_devicePeak ?? 0, memory.UsedBytes) : _devicePeak;
        }

        _last = now;
    }

    public RunUsage Read()
    {
        using var process = Process.GetCurrentProcess();
        return new(_memoryAtStart, process.PeakWorkingSet64, _seconds.Count > 1 ? Median.Of(_seconds.Skip(1)) : null, _devicePeak);   // the first step warms up
    }
}
