namespace TrainingService.Training.Data;

/// <summary>Where a look at a file ends, however much more there is of it. A run has no such end.</summary>
/// <param name="Bytes">Bytes of the rows, unpacked.</param>
/// <param name="Rows">Rows, those in error included.</param>
/// <param name="Over">Set when the time for it is over.</param>
public sealed record ReadingLimits(long Bytes, int Rows, CancellationToken Over);
