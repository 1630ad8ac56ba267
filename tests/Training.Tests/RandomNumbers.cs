namespace TrainingService.Training.Tests;

/// <summary>Tests that compare random draws: torch's generator is one for the whole process, so they run alone.</summary>
[CollectionDefinition(nameof(RandomNumbers), DisableParallelization = true)]
public sealed class RandomNumbers;
