using Microsoft.Extensions.Options;

namespace TrainingService.Worker.Supervision;

/// <summary>Which GPU each training process of this worker gets.</summary>
internal sealed class DeviceSlots(IOptions<WorkerOptions> options)
{
    private readonly Lock _gate = new();
    private readonly string[] _devices =
        (options.Value.CudaDevices ?? "").Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);

    private readonly Dictionary<string, int> _running = [];

    /// <summary>The GPU with the fewest runs, the first of several; it counts one more until the slot is disposed.</summary>
    public Slot Take()
    {
        if (_devices.Length == 0)
        {
            return new Slot(this, null);
        }

        lock (_gate)
        {
            var device = _devices.MinBy(name => _running.GetValueOrDefault(name))!;
            _running[device] = _running.GetValueOrDefault(device) + 1;
            return new Slot(this, device);
        }
    }

    private void Return(string device)
    {
        lock (_gate)
        {
            _running[device]--;
        }
    }

    /// <param name="owner">Takes it back.</param>
    /// <param name="device">As CUDA names it; null: whatever this worker sees.</param>
    public sealed class Slot(DeviceSlots owner, string? device) : IDisposable
    {
        private bool _returned;

        public string? Device => device;

        public void Dispose()
        {
            if (device is not null && !_returned)
            {
                _returned = true;
                owner.Return(device);
            }
        }
    }
}
