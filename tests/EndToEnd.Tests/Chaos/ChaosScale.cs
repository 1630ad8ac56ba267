namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>How much of it: CI has minutes, <c>scripts/chaos.sh</c> takes its time.</summary>
internal static class ChaosScale
{
    public static bool IsFull { get; } = Environment.GetEnvironmentVariable("TRAINING_CHAOS_FULL") == "1";
}
