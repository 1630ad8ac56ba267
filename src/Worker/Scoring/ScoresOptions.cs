using System.ComponentModel.DataAnnotations;

namespace TrainingService.Worker.Scoring;

/// <summary>Section <c>Scores</c>: the process that serves reward models.</summary>
public sealed record ScoresOptions
{
    public const string Section = "Scores";

    /// <summary>Bytes that the weights of loaded reward models may take together; those used longest ago give way, none that is in use does, and a larger model is refused.</summary>
    [Range(1, long.MaxValue)]
    public long MemoryBytes { get; init; } = 8L << 30;

    /// <summary>Answers that one request may hold.</summary>
    [Range(1, 100_000)]
    public int MostAnswers { get; init; } = 1024;

    /// <summary>Requests that may wait for their scores at a time; more are answered 429.</summary>
    [Range(1, 100_000)]
    public int MostWaiting { get; init; } = 1000;

    /// <summary>GPU of the process, as CUDA numbers or names it; null: the first that the API sees.</summary>
    public string? CudaDevice { get; init; }
}
