using System.Runtime.InteropServices;

namespace TrainingService.Training.Devices;

/// <summary>Asks the CUDA driver itself: TorchSharp binds no memory figures.</summary>
/// <remarks><c>cuMemGetInfo</c> of the CUDA Driver API. It answers for the context that is current on the calling thread, which libtorch has
/// made so once the thread has used the device.</remarks>
public sealed class CudaDriverMemory : IDeviceMemory
{
    private readonly MemoryInfo _read;

    private CudaDriverMemory(MemoryInfo read) => _read = read;

    private delegate int MemoryInfo(out nuint free, out nuint total);

    /// <summary>The driver of this machine; null when it has none.</summary>
    public static CudaDriverMemory? Open() =>
        NativeLibrary.TryLoad(OperatingSystem.IsWindows() ? "nvcuda.dll" : "libcuda.so.1", out var driver)
        && NativeLibrary.TryGetExport(driver, "cuMemGetInfo_v2", out var function)
            ? new(Marshal.GetDelegateForFunctionPointer<MemoryInfo>(function))
            : null;

    public DeviceMemoryFigures? Read() => _read(out var free, out var total) == 0 ? new((long)free, (long)total) : null;
}
