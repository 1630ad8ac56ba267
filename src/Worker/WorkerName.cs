namespace TrainingService.Worker;

/// <summary>By what name this process holds leases and is announced to the courier.</summary>
internal static class WorkerName
{
    public static readonly string Value = $"{Environment.MachineName}:{Environment.ProcessId}";
}
