namespace TrainingService.Training.Devices;

/// <summary>Memory of a GPU as its driver counts it, that of all processes together.</summary>
public readonly record struct DeviceMemoryFigures(long FreeBytes, long TotalBytes)
{
    public long UsedBytes => TotalBytes - FreeBytes;
}

/// <summary>Where <see cref="DeviceMemoryFigures"/> come from; tests have figures of their own.</summary>
public interface IDeviceMemory
{
    /// <summary>The figures of now; null when the driver does not give them.</summary>
    DeviceMemoryFigures? Read();
}
