using System.Globalization;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;

namespace TrainingService.Training;

/// <summary>Tells a full disk and a lack of memory apart from other exceptions, and says what they need.</summary>
public static class RunFailures
{
    /// <summary>An estimate this many times the memory of the machine cannot be wrong by so much.</summary>
    private const int ClearlyTooMuch = 4;

    // ENOSPC and EDQUOT as .NET passes them on, and what Windows calls a full disk.
    private static readonly int[] DiskFullCodes = [28, 122, unchecked((int)0x80070070), unchecked((int)0x80070027)];

    // How libtorch, the CUDA driver and the C++ runtime say it; no exception type of their own reaches .NET.
    private static readonly string[] OutOfMemoryWords =
    [
        "out of memory", "not enough memory", "std::bad_alloc", "can't allocate memory", "STATUS_ALLOC_FAILED", "Cannot allocate memory",
        "Storage size calculation overflowed",
    ];

    /// <summary>Whether <paramref name="error"/>, or what caused it, is a lack of memory.</summary>
    public static bool IsOutOfMemory(Exception error) =>
        error is OutOfMemoryException || SpeaksOfMemory(error.Message) || (error.InnerException is { } inner && IsOutOfMemory(inner));

    /// <summary>Whether a message, or a log, tells that memory ran out.</summary>
    public static bool SpeaksOfMemory(string text) => OutOfMemoryWords.Any(words => text.Contains(words, StringComparison.OrdinalIgnoreCase));

    internal static bool IsDiskFull(Exception error) => error is IOException && DiskFullCodes.Contains(error.HResult);

    internal static TrainingException DiskFull(TrainingSpec spec, Estimate? estimate, string workFolder, Exception error)
    {
        // Besides the newest ones: the best, the one in the making, and the result.
        var needed = estimate is null ? null : (long?)((spec.Checkpoints.Keep + 3) * (estimate.ArtifactBytes + estimate.Memory.OptimizerBytes));
        var free = Directory.Exists(workFolder) ? new DriveInfo(Path.GetFullPath(workFolder)).AvailableFreeSpace : 0;
        return new(
            FailureCode.Storage,
            $"The disk of the work folder '{workFolder}' is full ({Size(free)} are free"
            + (needed is { } bytes ? $", and the run needs about {Size(bytes)}" : "")
            + "): make room, or lower checkpoints.keep; the run goes on from its newest checkpoint.",
            inner: error);
    }

    /// <summary>What the owner of a run is told that met a lack of memory, on the machine or on its GPU.</summary>
    /// <param name="estimate">Null: the run ended before one could be made.</param>
    public static TrainingException OutOfMemory(Estimate? estimate, Exception error)
    {
        var message = error.InnerException is { } inner ? $"{error.Message} {inner.Message}" : error.Message;
        var sentence = CudaMessages.SpeakOfGpu(message)
            ? Sentence("The memory of the GPU was not enough", estimate, CudaMessages.CapacityIn(message) ?? CudaDriverMemory.Open()?.Read()?.TotalBytes, "GPU")
            : Sentence("Memory was not enough", estimate, MachineMemory.Bytes, "machine");
        return new(FailureCode.OutOfMemory, sentence, "schedule.batch_size", error);
    }

    /// <exception cref="TrainingException">The machine cannot hold the run, by far.</exception>
    internal static void ThrowIfClearlyTooLarge(Estimate estimate, long available)
    {
        if (estimate.Memory.TotalBytes / ClearlyTooMuch > available)
        {
            throw new TrainingException(
                FailureCode.OutOfMemory, Sentence("This run does not fit into memory", estimate, available, "machine"),
                estimate.Memory.BytesWithoutRows() > available ? "model" : "schedule.batch_size");
        }
    }

    /// <summary>What a run would take with the rows that it has, rather than with the longest that it allows.</summary>
    internal static Estimate EstimateFor(TrainingSpec spec, ModelConfig model, Data.SplitReport rows, bool onGpu)
    {
        var tokens = rows.Tokens!.Total;
        var longest = spec.Data.Packing
            ? (int)Math.Min(spec.Data.MaxLength, tokens)
            : rows.Tokens.Max;
        var batch = Math.Min(spec.Schedule.BatchSize, spec.Data.Packing ? (tokens + longest - 1) / longest : rows.Examples);
        return Estimate.For(
            spec with
            {
                Data = spec.Data with { MaxLength = longest, ValidationSplit = 0 },   // these rows are what is left to train on
                Schedule = spec.Schedule with { BatchSize = (int)batch },
            },
            model, new DataSize(rows.Examples, tokens), onGpu);
    }

    /// <param name="available">What the place has; null: not known.</param>
    private static string Sentence(string what, Estimate? estimate, long? available, string place) =>
        what
        + (estimate is null ? "" : $": about {Size(estimate.Memory.TotalBytes)} are needed (estimated)")
        + (estimate is null || available is not { } bytes ? "" : $" and this {place} has {Size(bytes)}")
        + (estimate?.Memory.BytesWithoutRows() > available
            ? "; take a smaller model, or adapter lora in place of full."
            : "; lower schedule.batch_size (and raise schedule.gradient_accumulation_steps by as much) or data.max_length.");

    private static string Size(long bytes) => bytes >= 1L << 30
        ? string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 30):F1} GiB")
        : string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 20):F1} MiB");
}
