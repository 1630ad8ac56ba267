using System.ComponentModel.DataAnnotations;

namespace TrainingService.Worker;

/// <summary>Section <c>Worker</c>: how training processes are started and watched.</summary>
public sealed record WorkerOptions
{
    public const string Section = "Worker";

    /// <summary>Whether the API process of the embedded profile runs jobs.</summary>
    public bool Enabled { get; init; } = true;

    /// <summary>The program that trains, <c>TrainingService.Worker.dll</c> or a self-contained build of it; null: found beside the service.</summary>
    public string? Executable { get; init; }

    /// <summary>Training processes at a time: one per GPU.</summary>
    [Range(1, 64)]
    public int Concurrency { get; init; } = 1;

    /// <summary>GPUs for training processes, as CUDA numbers or names them, with commas between: each process sees one, that with the fewest runs; null: each sees all that the worker sees and takes the first.</summary>
    public string? CudaDevices { get; init; }

    /// <summary>Folder of the attempts in work and of the cache; null: <c>worker</c> below the data folder.</summary>
    public string? WorkFolder { get; init; }

    /// <summary>Bytes that models, data and token sequences on the local disk may take; beyond that those used longest ago are removed, but none in use.</summary>
    [Range(0, 1e18)]
    public long CacheBytes { get; init; } = 100L << 30;

    /// <summary>Seconds after which a silent worker's job is taken away; renewed four times within.</summary>
    [Range(2, 3600)]
    public double LeaseSeconds { get; init; } = 60;

    /// <summary>Seconds between two looks at whether the job's owner wants its end.</summary>
    [Range(0.05, 60)]
    public double WatchSeconds { get; init; } = 0.5;

    /// <summary>Milliseconds over which reports of the training process are gathered into one transaction.</summary>
    [Range(1, 10_000)]
    public int FlushMilliseconds { get; init; } = 250;

    /// <summary>Seconds that a training process has to obey <c>cancel</c> before it is killed.</summary>
    [Range(0, 600)]
    public double CancelGraceSeconds { get; init; } = 3;

    /// <summary>Seconds for saving and storing a checkpoint when a job is paused or has run for too long; then the last stored one stands.</summary>
    [Range(0, 3600)]
    public double PauseGraceSeconds { get; init; } = 60;

    /// <summary>Seconds for saving and storing a checkpoint when the worker shuts down; then the last stored one stands.</summary>
    [Range(0, 3600)]
    public double ShutdownGraceSeconds { get; init; } = 60;

    /// <summary>Seconds for which reads and writes of the artifact store are tried again while it is away, each.</summary>
    [Range(0, 86_400)]
    public double StorePatienceSeconds { get; init; } = 600;

    /// <summary>Seconds that a job may run in all its attempts together, set-up included; null: any time. A job's own limit counts when it is smaller.</summary>
    [Range(1, 1e9)]
    public double? MaxRunSeconds { get; init; }

    /// <summary>Failures of the platform that a job may meet: the last one of so many fails it. Lost workers have a cap of their own, and shutdowns and pauses do not count.</summary>
    [Range(1, 100)]
    public int MaxAttempts { get; init; } = 3;

    /// <summary>Seconds before another attempt after the first failure; doubles with each further one, up to ten minutes.</summary>
    [Range(0, 3600)]
    public double RetrySeconds { get; init; } = 10;

    /// <summary>Address of <c>/health/live</c> and <c>/health/ready</c> of a worker of its own; port 0: any free one.</summary>
    [Required(AllowEmptyStrings = false)]
    public string HealthUrl { get; init; } = "http://127.0.0.1:0";

    /// <summary>Allocator to preload into training processes, a library file; null: tcmalloc, else jemalloc, where one is installed; empty: none, and glibc's malloc keeps what is freed. The verbs read it as an environment variable.</summary>
    public string? Preload { get; init; }
}
