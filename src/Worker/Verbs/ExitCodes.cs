namespace TrainingService.Worker.Verbs;

/// <summary>What the process's end tells its supervisor.</summary>
internal static class ExitCodes
{
    public const int Done = 0;

    /// <summary>A <c>failed</c> line (train) or a message on standard error says why.</summary>
    public const int Failed = 1;

    /// <summary>Stopped as asked, with a checkpoint: the same command goes on.</summary>
    public const int Stopped = 3;

    /// <summary>Cancelled as asked; nothing is kept.</summary>
    public const int Cancelled = 4;
}
