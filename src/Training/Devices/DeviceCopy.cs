using TorchSharp;
using static TorchSharp.torch;

namespace TrainingService.Training.Devices;

/// <summary>Brings what the host has prepared to where the model is.</summary>
public static class DeviceCopy
{
    /// <summary>On a GPU, copies from pinned memory and does not wait: the kernels that read the copy are queued behind it.</summary>
    /// <param name="host">On the CPU; owned by the caller's dispose scope, as the result is.</param>
    /// <returns><paramref name="host"/> itself when the model is on the CPU.</returns>
    public static Tensor To(Tensor host, Device device)
    {
        if (device.type == DeviceType.CPU)
        {
            return host;
        }

        // libtorch's allocator of pinned memory holds a block until the copy from it has happened.
        using var scope = NewDisposeScope();
        var copy = empty(host.shape, dtype: host.dtype, device: device);
        copy.copy_(host.pin_memory(), true);
        return copy.MoveToOuterDisposeScope();
    }
}
